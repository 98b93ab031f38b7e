"""Environment settings that must precede the import of JAX: platforms to look for, and the verbosity of libraries."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

GOOGLE = "0x1ae0"  # vendor of TPUs on the PCI bus
PCI = Path("/sys/bus/pci/devices")


def prepare() -> None:
    """Set environment variables for this process and its children, unless they are set already."""
    # 2: errors only. XLA warns, in 900 characters each, about layouts that cost a copy; a slow step shows in its MFU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # JAX would start libtpu (`jax[tpu]`), which complains at length if there is no TPU.
    if importlib.util.find_spec("libtpu") and not (has_tpu() or has_plugins()):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def has_tpu() -> bool:
    """Whether this machine has a TPU, or the environment says so."""
    if "JAX_FORCE_TPU_INIT" in os.environ or any(Path("/dev").glob("accel[0-9]*")):
        return True
    return any(_vendor(device) == GOOGLE for device in PCI.glob("*/vendor"))


def _vendor(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # unplugged meanwhile, or not readable for us
        return ""


def has_plugins() -> bool:
    """Whether JAX has a plugin for another accelerator, such as CUDA's."""
    return bool(importlib.util.find_spec("jax_plugins") or importlib.metadata.entry_points(group="jax_plugins"))
