"""Collectives of a compiled program: who takes part, along which mesh axes, and how much each chip sends.

What a chip sends, with n chips in a group and result (of a reduce-scatter: input) of so many bytes, as in a ring:

    all-gather, reduce-scatter, all-to-all    bytes x (n - 1) / n
    all-reduce                                twice that: a reduce-scatter and an all-gather
    collective-permute                        bytes, of a chip that has somebody to send to

Devices are numbered as in the mesh, row by row: `jax.jit` hands them to the compiler in that order."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tpu.hlo import Computation, Instruction, Shape, leaves

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
Groups = tuple[tuple[int, ...], ...]


class Collective(NamedTuple):
    """One exchange. `groups`: the devices that exchange with each other; of a collective-permute (source, target)."""

    kind: str
    bytes: int  # of the whole array on one chip: a gathered or reduced result, an input that is scattered or sent on
    groups: Groups
    asynchronous: bool  # begun and ended by instructions of their own, others in between
    name: str
    source: str  # where in the traced program it comes from

    @property
    def size(self) -> int:
        """Chips in a group."""
        return max(map(len, self.groups), default=1)

    @property
    def sent(self) -> float:
        """Bytes that a chip sends."""
        if self.kind == "collective-permute":
            return float(self.bytes) if any(a != b for a, b in self.groups) else 0.0
        share = (self.size - 1) / self.size
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def kind_of(x: Instruction) -> str:
    """ "" for an instruction that begins no collective."""
    kind = x.opcode.removesuffix("-start")
    return kind if kind in KINDS else ""


def collective(x: Instruction, inside: Computation, devices: int, asynchronous: bool = False) -> Collective:
    """The collective that this instruction begins."""
    kind, started = kind_of(x), x.opcode.endswith("-start")
    given = sum(s.bytes for operand in inside.operands(x) for s in operand.shapes)
    result = x.type
    if started and kind in ("all-gather", "collective-permute") and not isinstance(result, Shape):
        result = result[1]  # of (operand, result, ..); a started all-reduce has its results only
    made = sum(s.bytes for s in leaves(result))
    if kind == "all-reduce" and (slices := _slices(x, inside)):
        # How TPUs write a reduce-scatter: an all-reduce, of which each chip keeps its part, within one fusion.
        kind, made = "reduce-scatter", sum(s.shapes[0].bytes for s in slices)
    size = given if kind in ("reduce-scatter", "ragged-all-to-all") else made
    groups = pairs(x.attributes) if kind == "collective-permute" else groups_of(x.attributes, devices)
    return Collective(kind, size, groups, asynchronous or started, x.name, x.op_name)


def between_slices(x: Instruction, inside: Computation, devices: int) -> list[Collective]:
    """What TPU slices exchange, each device with those at its place in other slices: the compiler hands it to the host
    and takes the result back, as a pair of send and recv. The mesh's outermost axis tells slices apart. Nothing for
    another instruction."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', x.attributes)
    slices = re.search(r'_xla_megascale_target="\{([\d,]+)\}', x.attributes)
    if x.opcode != "send" or kind is None or slices is None:
        return []
    n = len(_ints(slices[1]))
    groups = tuple(tuple(range(i, devices, devices // n)) for i in range(devices // n))
    size = sum(s.bytes for s in inside.operands(x)[0].shapes)
    return [Collective(kind[1].lower().replace("_", "-"), size, groups, True, x.name, x.op_name)]


def _slices(x: Instruction, inside: Computation) -> list[Instruction]:
    """The dynamic-slices that are all that becomes of this all-reduce, or of several arrays that it adds up; [] where
    more is made of it."""
    parts = [y.name for y in inside if y.opcode == "get-tuple-element" and x.name in y.operands]
    users = [y for y in inside if y.name not in parts and any(name in y.operands for name in (x.name, *parts))]
    return users if all(y.opcode == "dynamic-slice" for y in users) else []


def axes(groups: Groups, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    names, sizes = list(mesh), list(mesh.values())
    found: set[int] = set()
    for group in groups:
        if len(group) > 1:
            places = np.array(np.unravel_index(list(group), sizes))
            found |= {i for i, place in enumerate(places) if len(set(place)) > 1}
    return tuple(names[i] for i in sorted(found))


def pairs(text: str) -> Groups:
    """{{0,1},{1,0}}, of a collective-permute."""
    found = re.search(r"source_target_pairs=\{(.*?)\}\}", text)
    return _lists(found[1]) if found else ()


def groups_of(text: str, devices: int) -> Groups:
    """The replica groups of an instruction's attributes. XLA writes them in three ways:

    {{0,1},{2,3}}: as lists. {}: all devices.
    [2,4]<=[4,2]T(1,0): 0, 1, 2 .. as [4,2], transposed, in rows of [2,4].
    mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}: along axis b of a mesh whose devices are numbered so; parts of
    axes are written 'b':(2)2, the 2 that follow after a factor of 2."""
    if found := re.search(r"replica_groups=\{(\{.*?\})\}", text):
        return _lists(found[1])
    if found := re.search(r"replica_groups=\[([\d,]+)\](<=\S+?\](?:T\([\d,]+\))?)", text):
        ids = _iota(found[2], devices)
        return tuple(map(tuple, ids.reshape(_ints(found[1])).tolist()))
    numbered = r"(?:, ?device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))?"
    if named := re.search(rf"replica_groups=@?\w*mesh\w*\[([^\]]*)\]{numbered} ?\{{([^}}]*)\}}", text):
        return _along(named[1], named[2] or "", named[3], devices)
    return (tuple(range(devices)),)


def _along(mesh: str, ids: str, over: str, devices: int) -> Groups:
    names = [(name, int(size)) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)]
    # Each axis as the factors into which its parts cut it.
    cut: dict[str, list[tuple[int, int]]] = {}
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", over):
        cut.setdefault(name, []).append((int(before or 1), int(size or 0)))
    dims: list[int] = []
    chosen: list[int] = []
    for name, whole in names:
        edges = {1, whole}
        for before, size in cut.get(name, ()):
            edges |= {before, before * (size or whole)}
        for low, high in itertools.pairwise(sorted(edges)):
            if any(before <= low and high <= before * (size or whole) for before, size in cut.get(name, ())):
                chosen.append(len(dims))
            dims.append(high // low)
    numbered = _iota(ids, devices).reshape(dims)
    rest = [i for i in range(len(dims)) if i not in chosen]
    rows = numbered.transpose(rest + chosen).reshape(-1, math.prod(dims[i] for i in chosen))
    return tuple(map(tuple, rows.tolist()))


def _iota(text: str, devices: int) -> np.ndarray:
    """[4,2]T(1,0), with <= before it or not; a list of ids; or nothing, which is 0, 1, 2 .."""
    ids = np.arange(devices)
    if found := re.fullmatch(r"(?:<=)?\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        ids = ids.reshape(_ints(found[1]))
        return ids.transpose(_ints(found[2])).reshape(-1) if found[2] else ids.reshape(-1)
    return np.array(_ints(text)) if re.fullmatch(r"[\d,]+", text) else ids


def _lists(text: str) -> Groups:
    return tuple(tuple(_ints(row)) for row in re.findall(r"\{?([\d,]+)\}?", text.replace("},{", "} {")))


def _ints(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]
