"""What clouds call TPUs: names of Google Cloud's documentation, by the generation of a topology such as v5p:4x4x4."""

import math
from typing import NamedTuple

from lm.core.errors import UserError, nearest


class Generation(NamedTuple):
    """accelerator: prefix of the TPU VM type, followed by so many `counts` for each chip (v4 and v5p count cores);
    runtime: the TPU VM's image; gke: value of the node label cloud.google.com/gke-tpu-accelerator; dims: of a shape."""

    accelerator: str
    counts: int
    runtime: str
    gke: str
    dims: int


GENERATIONS = {
    "v4": Generation("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", 3),
    "v5e": Generation("v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", 2),
    "v5p": Generation("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", 3),
    "v6e": Generation("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", 2),
}
CHIPS_PER_HOST = 4


class Pod(NamedTuple):
    """A slice: `chips` in `shape`, four to a host."""

    generation: Generation
    shape: str
    chips: int

    @property
    def accelerator(self) -> str:
        """The TPU VM type: v5p-128 has 64 chips."""
        return f"{self.generation.accelerator}-{self.chips * self.generation.counts}"

    @property
    def hosts(self) -> int:
        return max(self.chips // CHIPS_PER_HOST, 1)


def topology_of(name: str) -> str:
    """The usual topology of so many chips by Google Cloud's name: v5p-256, which counts cores, is v5p:4x4x8, and
    v5e-16, or v5litepod-16, is v5e:4x4. A topology is returned as it is. Raises `UserError`."""
    if ":" in name:
        return name
    kind, _, number = name.rpartition("-")
    kind = {"v5litepod": "v5e"}.get(kind, kind)
    if kind not in GENERATIONS or not number.isdecimal():
        raise UserError(f"{name!r} names no TPUs{nearest(kind, GENERATIONS)}; write it as v5p-256 or v5p:4x4x8")
    generation = GENERATIONS[kind]
    chips, rest = divmod(int(number), generation.counts)
    sides = _sides(chips, generation.dims)
    if rest or not sides:
        raise UserError(f"{name!r}: no slice of {int(number) / generation.counts:g} chips is a box of powers of two")
    return f"{kind}:{'x'.join(map(str, sides))}"


def _sides(chips: int, dims: int) -> list[int]:
    """The most even powers of two, ascending, that multiply to this number; [] where there are none."""
    power = chips.bit_length() - 1
    if chips < 1 or chips != 2**power:
        return []
    return [2 ** ((power + i) // dims) for i in range(dims)]


def pod(topology: str) -> Pod:
    """Of "v5p:4x4x4", as tpu.compile writes it. Raises `UserError`."""
    name, _, shape = topology.partition(":")
    if name not in GENERATIONS:
        raise UserError(f"topology={topology!r}: no TPU generation {name!r}{nearest(name, GENERATIONS)}")
    sizes = shape.split("x")
    generation = GENERATIONS[name]
    if len(sizes) != generation.dims or not all(s.isdecimal() and int(s) for s in sizes):
        raise UserError(f"topology={topology!r} must be {name}: and {'x'.join(['4'] * generation.dims)} or the like")
    chips = math.prod(map(int, sizes))
    if chips > CHIPS_PER_HOST and chips % CHIPS_PER_HOST:
        raise UserError(f"topology={topology!r} has {chips} chips, which hosts of {CHIPS_PER_HOST} do not make up")
    return Pod(generation, shape, chips)
