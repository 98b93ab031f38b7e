"""Published figures of accelerators."""

from typing import NamedTuple


class Chip(NamedTuple):
    flops: float  # dense bfloat16 FLOP/s, from the vendor's data sheet
    hbm: int  # bytes


GIB = 2**30
# By the name of a TPU topology.
TPUS = {
    "v2": Chip(46e12, 16 * GIB),
    "v3": Chip(123e12, 32 * GIB),
    "v4": Chip(275e12, 32 * GIB),
    "v5e": Chip(197e12, 16 * GIB),
    "v5p": Chip(459e12, 95 * GIB),
    "v6e": Chip(918e12, 32 * GIB),
}
# By JAX's `device_kind`.
DEVICES = {
    "TPU v2": Chip(TPUS["v2"].flops / 2, TPUS["v2"].hbm // 2),  # a v2 or v3 device is one core, half a chip
    "TPU v3": Chip(TPUS["v3"].flops / 2, TPUS["v3"].hbm // 2),
    "TPU v4": TPUS["v4"],
    "TPU v5 lite": TPUS["v5e"],
    "TPU v5e": TPUS["v5e"],
    "TPU v5": TPUS["v5p"],
    "TPU v5p": TPUS["v5p"],
    "TPU v6 lite": TPUS["v6e"],
    "TPU v6e": TPUS["v6e"],
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40 * GIB),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80 * GIB),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80 * GIB),
    "NVIDIA H200": Chip(989e12, 141 * GIB),
    "NVIDIA L4": Chip(121e12, 24 * GIB),
    "Tesla T4": Chip(65e12, 16 * GIB),
}
