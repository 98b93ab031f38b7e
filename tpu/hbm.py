"""How a compiled program uses a chip's memory, by kind.

Three analyses speak of it, and they do not say the same:

- the shapes and layouts of the arguments: parameters, optimizer state, batch, cache. Exact, but for padding;
- XLA's buffer assignment: every buffer with its place. What it says in all is what a run allocates, and `allocated`
  here. It comes from a file that the compiler writes when asked to (`dumping`);
- `Compiled.memory_analysis()`: its `temp_size_in_bytes` counts some buffers that share memory more than once, and at
  times none. It is reported beside the other since published tables give it.

What the forward pass saves for the backward pass is read from the program: `saved`."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tpu.hlo import HBM, Computation, Instruction, Program, leaves


class Dump(NamedTuple):
    """A folder for what the compiler writes, and the options that make it write there."""

    folder: Path

    @property
    def options(self) -> dict[str, Any]:
        return {"xla_dump_to": str(self.folder), "xla_dump_hlo_as_text": True}

    def file(self, ending: str) -> str:
        """Its text; "" where the compiler wrote none."""
        found = sorted(self.folder.glob(f"*{ending}"))
        return found[-1].read_text() if found else ""

    @property
    def program(self) -> str:
        """The compiled program, also of one that does not fit."""
        return self.file(".after_optimizations.txt")

    @property
    def allocation(self) -> "Allocation | None":
        return read_allocation(self.file("-memory-usage-report.txt"))


@contextlib.contextmanager
def dumping() -> Iterator[Dump]:
    with tempfile.TemporaryDirectory() as folder:
        yield Dump(Path(folder))


class Allocation(NamedTuple):
    """By XLA's buffer assignment: bytes of a chip's HBM, arguments included, and its largest buffers, whose memory
    several arrays may use, one after the other."""

    bytes: int
    largest: tuple[tuple[int, str], ...]  # bytes, shapes


def read_allocation(text: str, most: int = 6) -> Allocation | None:
    """From the memory usage report among the compiler's files; None where it has none of HBM."""
    of_hbm = r"Memory Space: default \(color=0\)\nTotal bytes: (\d+)(.*?)(?:\nMemory Space|\Z)"
    section = re.search(of_hbm, text, re.DOTALL)
    if section is None:
        return None
    sizes = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    rows = re.findall(r"\n *[\d.]+[KMGi]*B\( *\d+%\); +([\d.]+)([KMGi]*B);[^;]*;[^;]*; (.*)", section[2])
    buffers = sorted(((round(float(n) * sizes[unit]), shapes) for n, unit, shapes in rows), reverse=True)
    return Allocation(int(section[1]), tuple(buffers[:most]))


def here(tree: Any) -> int:
    """Bytes of these abstract arrays on one device, by their shardings."""
    return sum(_here(x) for x in jax.tree.leaves(tree))


def _here(x: jax.ShapeDtypeStruct) -> int:
    shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
    n = 1
    for size in shape:
        n *= size
    return n * x.dtype.itemsize


def saved(program: Program) -> int:
    """Bytes of HBM that the forward pass leaves to the backward pass: of values that an instruction of the one makes
    and one of the other reads, told apart by where in the traced program they come from. Microbatches that follow one
    another use the same memory."""
    return max(_saved(program, c) for c in program.computations.values())


def _saved(program: Program, c: Computation) -> int:
    kept: dict[tuple[str, int], int] = {}
    for x in c:
        if "transpose(jvp" not in x.op_name or x.opcode in ("tuple", "get-tuple-element", "bitcast"):
            continue
        for value in _values(c, x):
            owner, at = _owner(c, value)
            if not _forward(owner) or (owner.opcode == "while" and _unchanged(program, owner, at)):
                continue
            shapes = list(leaves(owner.type[at] if at >= 0 else owner.type))  # type: ignore[index,arg-type]
            kept[owner.name, at] = sum(s.bytes for s in shapes if s.space == HBM)
    return sum(kept.values())


def _values(c: Computation, x: Instruction) -> list[Instruction]:
    """What an instruction reads, parts of tuples apart."""
    read = []
    for operand in c.operands(x):
        read += _values(c, operand) if operand.opcode == "tuple" else [operand]
    return read


def _owner(c: Computation, x: Instruction) -> tuple[Instruction, int]:
    """The instruction that made a value, and which part of its result that is; -1: all of it."""
    at = -1
    while x.opcode in ("bitcast", "get-tuple-element"):
        if x.opcode == "get-tuple-element":
            at = x.element
        x = c.operands(x)[0]
    return x, at


def _forward(x: Instruction) -> bool:
    made = (
        x.opcode not in ("parameter", "constant", "broadcast", "iota", "tuple") and "AllocateBuffer" not in x.attributes
    )
    return made and "jvp(" in x.op_name and "transpose(jvp" not in x.op_name


def _unchanged(program: Program, loop: Instruction, at: int) -> bool:
    """Whether a loop only hands on this part of its state."""
    body = program.computations[loop.calls("body")]
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return False
    x = body.instructions[root.operands[at]]
    return x.opcode == "get-tuple-element" and x.element == at and body.operands(x)[0].opcode == "parameter"
