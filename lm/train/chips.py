"""Published figures of accelerators."""

from typing import NamedTuple


class Chip(NamedTuple):
    """From the vendor's data sheet; 0 where none says."""

    flops: float  # dense bfloat16 FLOP/s
    hbm: int  # bytes
    bandwidth: float = 0  # of that memory, bytes/s
    link: float = 0  # of one interconnect link, one way, bytes/s
    dcn: float = 0  # of the data-centre network between slices, per chip and one way, bytes/s


GIB = 2**30
# By the name of a TPU topology. Bandwidths: cloud.google.com/tpu/docs/v5e, v5p and v6e, which state the interconnect of
# a chip both ways (400, 1200, 800 GB/s), of which a link, one of 4 in a 2-D torus and of 6 in a 3-D one, has its share;
# DCN per chip (v5p 50 Gbit/s) or per pod of 256 chips (v5e 6.4, v6e 25.6 Tbit/s). v4: Jouppi et al. 2023, arXiv
# 2304.01433, without a figure for DCN.
TPUS = {
    "v2": Chip(46e12, 16 * GIB),
    "v3": Chip(123e12, 32 * GIB),
    "v4": Chip(275e12, 32 * GIB, 1.2e12, 50e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 50e9, 3.125e9),
    "v5p": Chip(459e12, 95 * GIB, 2.765e12, 100e9, 6.25e9),
    "v6e": Chip(918e12, 32 * GIB, 1.6e12, 100e9, 12.5e9),
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
