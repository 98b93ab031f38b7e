"""What the devices here can do: peak matmul rates, for MFU (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), and
their memory."""

import functools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from lm.train.chips import DEVICES


@functools.cache
def peak_flops(dtype: str) -> tuple[float, str]:
    """(FLOP/s of all devices together, where the figure is from): the data sheet's for known accelerators, else
    measured here with a large matmul of that dtype. Simulated CPU devices share one machine: they are counted once."""
    device = jax.devices()[0]
    if device.device_kind in DEVICES:
        flops = DEVICES[device.device_kind].flops
        return flops * jax.device_count(), f"data sheet of {device.device_kind}, bfloat16"
    n = 2048
    x = jnp.ones((n, n), dtype)
    multiply = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    multiply(x).block_until_ready()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        multiply(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    scale = 1 if device.platform == "cpu" else jax.device_count()
    return scale * 2 * n**3 / best, f"measured {dtype} matmul"


def memory_limit() -> int | None:
    """Bytes that one device of this process may use; None where that is unknown. CPU devices share the machine's
    memory, or what its control group (a container, a job of a scheduler) leaves of it."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        known = DEVICES.get(device.device_kind)
        return stats.get("bytes_limit") or (known.hbm if known else None)
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on every system
        return None
    return min(machine, _group_limit() or machine) // jax.local_device_count()


def _group_limit() -> int | None:
    """Of the control group, version 2 or 1."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((Path("/sys/fs/cgroup") / name).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
