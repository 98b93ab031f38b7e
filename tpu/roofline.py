"""How long a compiled program takes at least: its arithmetic, memory traffic and exchanges over what a chip can do.

The network is a torus of chips: 2-D of v5e and v6e, where only an axis of 16 closes into a ring, 3-D of v4 and v5p,
where all axes do if each is a multiple of 4. Along an axis of the torus a ring of chips sends both ways at once, a line
no faster than one link; groups that interleave on an axis share it. A group that covers several axes of the torus uses
them all. So, for `sent` bytes of a chip (`tpu.collectives`):

    all-gather, reduce-scatter, all-reduce    sent / (links of the axes x bandwidth)
    all-to-all                                bytes x chips / (8 of a ring, 4 of a line) on the axis where that is most
    collective-permute                        sent x mean distance / bandwidth of a link

Between slices everything goes through the data-centre network.

What overlaps. An instruction overlaps its own memory traffic with its own arithmetic, and instructions follow one
another. Collectives with a start and an end of their own, and copies that are begun early, run beside all of that,
those along different mesh axes beside each other; other collectives hold up the chip."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.train.chips import Chip
from tpu.collectives import Collective, axes
from tpu.work import Work

DCN = "dcn"


class Torus(NamedTuple):
    """Where the devices of a mesh stand, in the order of the mesh."""

    coords: np.ndarray  # int [devices, axes of the torus]
    slices: np.ndarray  # int [devices]
    rings: tuple[bool, ...]  # of each axis whether it closes

    @classmethod
    def of(cls, devices: Sequence[Any], generation: str) -> "Torus":
        coords = np.array([d.coords for d in devices])
        slices = np.array([getattr(d, "slice_index", None) or 0 for d in devices])
        extents = coords.max(0) - coords.min(0) + 1
        if generation in ("v5e", "v6e"):
            return cls(coords, slices, tuple(extents == 16))
        return cls(coords, slices, (bool((extents % 4 == 0).all()),) * len(extents))

    @property
    def extents(self) -> np.ndarray:
        return self.coords.max(0) - self.coords.min(0) + 1

    def crosses_slices(self, group: Sequence[int]) -> bool:
        return len(set(self.slices[list(group)])) > 1

    def along(self, group: Sequence[int]) -> list["Axis"]:
        """The axes of the torus on which a group lies."""
        found = []
        for axis, places in enumerate(self.coords[list(group)].T):
            here = sorted(set(places.tolist()))
            if len(here) > 1:
                stride = min(b - a for a, b in itertools.pairwise(here))
                ring = self.rings[axis] and len(here) * stride == self.extents[axis]
                found.append(Axis(len(here), ring, stride))
        return found

    def distance(self, a: int, b: int) -> int:
        """In links."""
        apart = np.abs(self.coords[a] - self.coords[b])
        return int(np.where(self.rings, np.minimum(apart, self.extents - apart), apart).sum())


class Axis(NamedTuple):
    """What a group covers of an axis of the torus."""

    chips: int
    ring: bool
    stride: int  # as many groups share its links

    @property
    def links(self) -> float:
        """On which each of its chips sends at once."""
        return (2 if self.ring else 1) / self.stride


def seconds(c: Collective, torus: Torus, chip: Chip) -> float:
    """That one collective takes at least; 0 where nobody sends anything."""
    if not c.sent:
        return 0.0
    if any(torus.crosses_slices(group) for group in c.groups):
        return c.sent / chip.dcn if chip.dcn else 0.0
    if c.kind == "collective-permute":
        distances = [torus.distance(a, b) for a, b in c.groups if a != b]
        return c.sent * float(np.mean(distances)) / chip.link
    over = torus.along(max(c.groups, key=len))
    if "all-to-all" in c.kind:
        return c.bytes * max(axis.chips * axis.stride / (8 if axis.ring else 4) for axis in over) / chip.link
    return c.sent / (sum(axis.links for axis in over) * chip.link)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one run of the program. `compute` and `memory`: all arithmetic, all memory traffic, if nothing else
    took time; `network`: all collectives along these mesh axes, joined by +, and "dcn" between slices."""

    compute: float
    memory: float
    network: dict[str, float]
    run: float  # instructions one after the other, each with its arithmetic or its memory traffic, whichever is longer
    held_up: float  # by collectives that nothing overlaps
    step: float  # the estimate: what overlaps, overlaps, and the rest is added

    @property
    def floor(self) -> float:
        """If everything overlapped."""
        return max(self.compute, self.memory, *self.network.values())

    @property
    def bound(self) -> str:
        """What the floor is made of."""
        return max({"compute": self.compute, "memory": self.memory, **self.network}.items(), key=lambda kv: kv[1])[0]


def roofline(work: Work, mesh: Mapping[str, int], torus: Torus, chip: Chip) -> Roofline:
    network: dict[str, float] = collections.defaultdict(float)
    beside: dict[str, float] = collections.defaultdict(float)
    run = held_up = 0.0
    for x in work.executed:
        moved = x.hbm / chip.bandwidth
        if x.collective is not None:
            name = name_of(x.collective, mesh, torus)
            taken = x.trips * seconds(x.collective, torus, chip)
            network[name] += taken
            if x.collective.asynchronous:
                beside[name] += taken
            else:
                held_up += max(taken, x.trips * moved)
            run += x.trips * x.flops / chip.flops
        elif not x.ahead:
            run += x.trips * max(x.flops / chip.flops, moved)
    memory = work.hbm / chip.bandwidth
    step = max(run, memory - held_up, *beside.values()) + held_up
    return Roofline(work.flops / chip.flops, memory, dict(network), run, held_up, step)


def name_of(c: Collective, mesh: Mapping[str, int], torus: Torus) -> str:
    """Under which a collective's time is added up."""
    if any(torus.crosses_slices(group) for group in c.groups):
        return DCN
    return "+".join(axes(c.groups, mesh)) or "none"
