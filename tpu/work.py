"""What a compiled program does, with loops counted: matmuls, memory traffic and collectives of each instruction."""

import dataclasses
from collections.abc import Iterator

from tpu.collectives import Collective, between_slices, collective, kind_of
from tpu.flops import flops
from tpu.hlo import HBM, HOST, Computation, Instruction, Program, Shape
from tpu.kernels import kernel_bytes, kernel_flops

# Which move nothing: they name what others made, or wait for it.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "domain"),
    *("partition-id", "replica-id", "add-dependency", "recv"),
}
# Which read a part of their first operand.
WINDOWS = ("dynamic-slice", "slice", "gather", "slice-start", "dynamic-slice-start")
THROUGH = ("bitcast", "reshape", "copy", "convert", "transpose")  # which pass on all of it, within a fusion


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction, all its executions. Figures are of one chip and one execution."""

    name: str
    source: str  # where in the traced program it comes from
    trips: int  # executions in one run of the program
    flops: int = 0
    hbm: int = 0  # bytes read from and written to the chip's memory
    host: int = 0  # likewise of the host's
    collective: Collective | None = None
    ahead: bool = False  # a copy that is begun early and ended by another instruction


@dataclasses.dataclass(frozen=True)
class Work:
    """All that a program does on one chip."""

    executed: tuple[Executed, ...]
    notes: tuple[str, ...]  # what could not be counted

    @property
    def flops(self) -> int:
        return sum(x.trips * x.flops for x in self.executed)

    @property
    def hbm(self) -> int:
        return sum(x.trips * x.hbm for x in self.executed)

    @property
    def host(self) -> int:
        return sum(x.trips * x.host for x in self.executed)

    @property
    def collectives(self) -> list[tuple[Collective, int]]:
        """Each with its executions."""
        return [(x.collective, x.trips) for x in self.executed if x.collective is not None]


def work(program: Program, devices: int) -> Work:
    """`devices`: how many run the program."""
    walk = _Walk(program, devices)
    executed = tuple(walk.computation(program.entry, 1))
    return Work(executed, tuple(dict.fromkeys(walk.notes)))


class _Walk:
    def __init__(self, program: Program, devices: int) -> None:
        self.program, self.devices, self.notes = program, devices, []  # type: tuple[Program, int, list[str]]

    def computation(self, c: Computation, trips: int) -> Iterator[Executed]:
        """All that running a computation so often executes."""
        begun: set[str] = set()  # channels of collectives that fusions begin, carry on and end
        for x in c:
            if x.opcode == "while":
                n = self.program.trips(x, c)
                if n is None:
                    self.notes.append(f"a loop of unknown length is counted once ({x.op_name or x.name})")
                yield from self.computation(self._called(x, "body"), trips * (1 if n is None else n))
            elif x.opcode == "conditional":
                branches = [list(self.computation(self.program.computations[b], trips)) for b in x.branches]
                yield from max(branches, key=lambda branch: sum(e.trips * e.flops for e in branch))
            elif x.opcode == "call":
                yield from self.computation(self._called(x, "to_apply"), trips)
            elif x.opcode == "async-start" and (name := x.calls("calls")):
                for e in self.computation(self.program.computations[name], trips):
                    gone = e.collective and e.collective._replace(asynchronous=True)
                    yield dataclasses.replace(e, collective=gone)
            elif x.opcode not in FREE and not x.opcode.endswith(("-done", "-update")):
                yield from self.instruction(x, c, trips, begun)

    def instruction(self, x: Instruction, c: Computation, trips: int, begun: set[str]) -> Iterator[Executed]:
        if x.opcode == "custom-call" and kernel_flops(x, c) is None:
            self.notes.append(f"a kernel does not state its FLOPs, which are not counted ({x.op_name or x.name})")
        if x.opcode == "fusion":
            found = list(self._begun(x, begun))
            total = sum(flops(inner, inside) for inner, inside in self._inside(x))
        else:
            found = [collective(x, c, self.devices)] if kind_of(x) else between_slices(x, c, self.devices)
            total = flops(x, c)
        hbm, host = (self._moved(x, c, space) for space in (HBM, HOST))
        ahead = x.opcode.endswith("-start") and not found
        first = found[0] if found else None
        yield Executed(x.name, x.op_name, trips, total, kernel_bytes(x) or hbm, host, first, ahead)
        for other in found[1:]:
            yield Executed(x.name, x.op_name, trips, collective=other)

    def _begun(self, fusion: Instruction, begun: set[str]) -> Iterator[Collective]:
        """The collectives that a fusion begins, and not those that it carries on or ends."""
        for inner, inside in self._inside(fusion):
            if kind_of(inner) and inner.channel not in begun:
                begun.add(inner.channel)
                asynchronous = any("AsyncCollectiveStart" in y.attributes for y in inside)
                yield collective(inner, inside, self.devices, asynchronous)

    def _called(self, x: Instruction, attribute: str) -> Computation:
        return self.program.computations[x.calls(attribute)]

    def _inside(self, fusion: Instruction) -> Iterator[tuple[Instruction, Computation]]:
        """The instructions of a fusion, and of fusions within it."""
        fused = self._called(fusion, "calls")
        for inner in fused:
            if inner.opcode == "fusion":
                yield from self._inside(inner)
            else:
                yield inner, fused

    # Memory traffic: each operand is read once and each result written once, of what is sliced or updated in place only
    # the part. Nothing within a fusion goes through memory.

    def _moved(self, x: Instruction, c: Computation, space: int) -> int:
        if x.opcode == "custom-call" and "AllocateBuffer" in x.attributes:
            return 0
        operands = c.operands(x)
        if x.opcode == "fusion":
            fused = self._called(x, "calls")
            read = sum(
                self._read(fused, p, operand, space) for p, operand in zip(fused.parameters, operands, strict=True)
            )
            return read + self._written(fused, fused.instructions[fused.root], x.shapes, space)
        if x.opcode in WINDOWS:
            part = x.shapes[len(operands) if x.opcode.endswith("-start") else 0]
            return _in(space, operands[0].shapes, part.bytes) + _in(space, [part])
        if x.opcode == "dynamic-update-slice":
            return _in(space, operands[1].shapes) + _in(space, x.shapes, operands[1].shapes[0].bytes)
        if x.opcode == "copy-start":  # its result is (result, operand, what keeps track of it)
            return _in(space, x.shapes[:2])
        if x.opcode.endswith("-start"):  # its result is (operands, results, what keeps track of it)
            return _in(space, x.shapes[: 2 * len(operands)])
        return sum(_in(space, y.shapes) for y in operands) + _in(space, x.shapes)

    def _read(self, fused: Computation, p: Instruction, operand: Instruction, space: int) -> int:
        """Bytes that a fusion reads of the operand that is its parameter p."""
        whole = _in(space, operand.shapes)
        return min(whole, self._used(fused, p)) if whole else 0

    def _used(self, fused: Computation, x: Instruction) -> int:
        """How many bytes of x are read within a fusion: of slices, and of what an update replaces, only that."""
        total, all_of_it = 0, sum(s.bytes for s in x.shapes)
        for user in (y for y in fused if x.name in y.operands):
            if user.opcode in WINDOWS and user.operands[0] == x.name and x.name not in user.operands[1:]:
                total += user.shapes[0].bytes
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == x.name:
                continue  # in place
            elif user.opcode in THROUGH:
                ratio = all_of_it / max(user.shapes[0].bytes, 1)
                total += round(self._used(fused, user) * ratio)
            elif user.opcode == "fusion":
                inner = self._called(user, "calls")
                at = [p for p, name in zip(inner.parameters, user.operands, strict=True) if name == x.name]
                total += sum(self._used(inner, p) for p in at)
            elif user.name == fused.root and user.opcode == "tuple":
                continue  # handed on
            elif kind_of(user) and _carried(user):
                continue  # what an asynchronous collective reads was counted where it began
            else:
                return all_of_it
        return min(total, all_of_it)

    def _written(self, fused: Computation, root: Instruction, shapes: list[Shape], space: int) -> int:
        """Bytes that a fusion writes, whose results have these shapes."""
        if root.opcode == "tuple":
            parts = [fused.instructions[name] for name in root.operands]
            if len(parts) == len(shapes):
                return sum(
                    self._written(fused, part, [shape], space)
                    for part, shape in zip(parts, shapes, strict=True)
                    if part.opcode != "parameter" and not (kind_of(part) and _carried(part))
                )
        if root.opcode == "dynamic-update-slice":
            return _in(space, shapes, fused.operands(root)[1].shapes[0].bytes)
        if root.opcode in ("bitcast", "copy") and root.operands:
            return self._written(fused, fused.instructions[root.operands[0]], shapes, space)
        if root.opcode == "fusion":
            inner = self._called(root, "calls")
            return self._written(inner, inner.instructions[inner.root], shapes, space)
        return _in(space, shapes)


def _carried(x: Instruction) -> bool:
    """Whether this is a step of a collective that another fusion began."""
    return '"flag_start":"' in x.attributes and '"flag_start":"-1"' not in x.attributes


def _in(space: int, shapes: list[Shape], part: int | None = None) -> int:
    """Bytes of those shapes that lie in this memory, or of the `part` of them that is moved."""
    here = [s.bytes for s in shapes if s.space == space]
    return sum(here) if part is None or not here else min(part, sum(here))
