"""Set before any test module imports jax, and inherited by the processes that tests start."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Eight devices on any machine: meshes are tested as they are used, and no accelerator is held by the tests.
os.environ["JAX_PLATFORMS"] = "cpu"
flags = " --xla_force_host_platform_device_count=8"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    # The first halves compilation there (later ones do not know the flag), the second saves a seventh of it: one part
    # of a tiny program is enough, and the other core has a worker of its own.
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + flags
# Tiny programs spend their time in LLVM: without its optimizations they take a third of the processor time.
# A compilation cache on disk would speed up reruns only; without it, each run tests the same thing.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Examples compile programs, so their time says nothing. The same ones run each time, everywhere, so that a test that
# fails is about what was changed; RANDOM_EXAMPLES=1 looks for new ones.
settings.register_profile(
    "lm",
    deadline=None,
    derandomize="RANDOM_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lm")

MAPS = 20_000  # of the 65,530 memory maps that Linux gives a process


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Compiled programs keep memory maps for as long as JAX remembers them, and XLA crashes where it is refused one:
    let go of them when thousands of tests have left many in one process."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MAPS:
        import jax

        jax.clear_caches()
