"""Reading a compiled program: XLA's text of it, as computations of instructions.

The text is what `jax.stages.Compiled.as_text()` gives, of any backend: one instruction a line,

    %name = type opcode(operands), attribute=value, ...

A type is `f32[4,256]{1,0:T(8,128)S(1)}`: dtype, dimensions, layout; S(n) is the memory that it lies in, on TPUs 0 (not
written) for HBM, 1 for the chip's own vector memory, 5 for the host's. Tuples of types are written in brackets."""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

HBM, VMEM, HOST = 0, 1, 5  # memory spaces of a layout
BITS = {"pred": 8, "token": 0, "opaque": 0, "f8e4m3b11fnuz": 8}  # of dtypes whose name does not say


class Shape(NamedTuple):
    """Of an array."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without what tiles of the layout pad."""
        return -(-self.size * _bits(self.dtype) // 8)


Type = Shape | tuple["Type", ...]


class Instruction(NamedTuple):
    """One line. `operands` are names of the same computation's instructions."""

    name: str
    opcode: str
    type: Type
    operands: tuple[str, ...]
    attributes: str  # as text
    literal: str  # what stands in the brackets, where that is no operand: constant(5), parameter(0)

    @property
    def shapes(self) -> list[Shape]:
        return list(leaves(self.type))

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from: jit(step)/jvp()/while/body/dot_general."""
        return _first(r'op_name="([^"]*)"', self.attributes)

    @property
    def element(self) -> int:
        """Of a get-tuple-element: which part."""
        return int(_first(r"\bindex=(\d+)", self.attributes))

    @property
    def channel(self) -> str:
        """Of a collective: the same of all instructions that begin, carry on and end it."""
        return _first(r"channel_id=(\d+)", self.attributes)

    def calls(self, attribute: str) -> str:
        """The computation that this attribute names ("" if there is none): body, condition, calls, to_apply."""
        return _first(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)

    @property
    def branches(self) -> list[str]:
        """The computations of a conditional."""
        several = _first(r"branch_computations=\{([^}]*)\}", self.attributes)
        return re.findall(r"%([\w.\-]+)", several) or [
            name for side in ("true", "false") if (name := self.calls(f"{side}_computation"))
        ]


class Computation(NamedTuple):
    """Instructions in the order in which they run."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    def __iter__(self) -> Iterator[Instruction]:  # type: ignore[override]
        return iter(self.instructions.values())

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands]

    @property
    def parameters(self) -> list[Instruction]:
        found = [x for x in self if x.opcode == "parameter"]
        return sorted(found, key=lambda x: int(x.literal))


class Program(NamedTuple):
    """A compiled program; `entry` is the computation where it begins."""

    computations: dict[str, Computation]
    entry: Computation

    def trips(self, loop: Instruction, inside: Computation) -> int | None:
        """How often a while loop of this computation goes round; None where that is not known before it runs.

        XLA says so for some backends (known_trip_count). For TPUs it does not, and counters are read: a condition
        `counter < bound`, the counter's first value, and what the body adds to it, all constant."""
        if known := _first(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known)
        condition, body = (self.computations[loop.calls(name)] for name in ("condition", "body"))
        compare, sides = self._compared(condition)
        if compare is None:
            return None
        at, bound = sides
        first = _constant(inside, _element(inside, inside.instructions[loop.operands[0]], at))
        step = self._step(body, at)
        if bound is None or first is None or not step:
            return None
        n = (bound - first) / step
        direction = _first(r"direction=(\w+)", compare.attributes)
        return max(math.floor(n) + 1 if direction in ("LE", "GE") else math.ceil(n), 0)

    def _compared(self, condition: Computation) -> tuple[Instruction | None, tuple[int, int | None]]:
        """The comparison that ends a loop, the counter's place in the loop's state, and its bound."""
        root = condition.instructions[condition.root]
        values = condition.operands(root)
        if root.opcode == "fusion":  # of a comparison and nothing else, as on CPUs
            fused = self.computations[root.calls("calls")]
            root = fused.instructions[fused.root]
            inner = fused.operands(root)
            if root.opcode != "compare" or any(x.opcode not in ("parameter", "constant") for x in inner):
                return None, (0, None)
            values = [values[int(x.literal)] if x.opcode == "parameter" else x for x in inner]
        if root.opcode != "compare":
            return None, (0, None)
        counters = [x for x in values if x.opcode == "get-tuple-element"]
        bounds = [x for x in values if x.opcode == "constant"]
        if len(counters) != 1 or len(bounds) != 1:
            return None, (0, None)
        return root, (counters[0].element, int(bounds[0].literal))

    def _step(self, body: Computation, at: int) -> int | None:
        """What the body adds to the counter."""
        new = _element(body, body.instructions[body.root], at)
        while new is not None and new.opcode in ("copy", "bitcast"):
            new = body.instructions[new.operands[0]]
        if new is None:
            return None
        values = body.operands(new)
        if new.opcode == "fusion":
            fused = self.computations[new.calls("calls")]
            new = fused.instructions[fused.root]
            values = [values[int(x.literal)] if x.opcode == "parameter" else x for x in fused.operands(new)]
        steps = [c for x in values if (c := _constant(body, x)) is not None]
        return steps[0] if new.opcode == "add" and len(steps) == 1 else None


def read(text: str) -> Program:
    """The program in XLA's text. Raises `ValueError` where there is none."""
    computations: dict[str, Computation] = {}
    entry = name = ""
    lines: dict[str, Instruction] = {}
    root = ""
    for line in _lines(text):
        if head := re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line):
            name, lines, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif line.startswith("}") and name:  # }, execution_thread="sparsecore": of what runs beside
            computations[name] = Computation(name, lines, root or next(reversed(lines)))
            name = ""
        elif name and (found := re.match(r"\s+(ROOT )?%([\w.\-]+) = ", line)):
            lines[found[2]] = _instruction(found[2], line[found.end() :])
            root = found[2] if found[1] else root
    if not entry:
        raise ValueError("no entry computation in this text: give what Compiled.as_text() returns")
    return Program(computations, computations[entry])


def _lines(text: str) -> Iterator[str]:
    """One for each instruction, and each beginning and end of a computation: what a kernel says of itself may hold line
    breaks."""
    begins = re.compile(r"\s+(ROOT )?%|ENTRY |%|HloModule|\}(, execution_thread=.*)?$")
    line = ""
    for part in text.splitlines():
        if begins.match(part):
            yield line
            line = part
        else:
            line += part
    yield line


def leaves(type: Type) -> Iterator[Shape]:
    if isinstance(type, Shape):
        yield type
    else:
        for part in type:
            yield from leaves(part)


def _instruction(name: str, text: str) -> Instruction:
    text = re.sub(r"/\*index=\d+\*/", "", text)
    end = _closed(text, 0) if text[0] == "(" else text.index(" ")
    opened = text.index("(", end)
    closed = _closed(text, opened)
    within = text[opened + 1 : closed - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", within))
    opcode, literal = text[end:opened].strip(), "" if operands else within
    return Instruction(name, opcode, _type(text[:end].strip()), operands, text[closed:], literal)


def _closed(text: str, opened: int) -> int:
    """Behind the bracket that closes the one at `opened`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"brackets do not close in {text[:80]!r}")


def _type(text: str) -> Type:
    if text.startswith("("):
        return tuple(_type(part) for part in _parts(text[1:-1]))
    found = re.match(r"(\w+)\[([^\]]*)\](.*)", text)
    if found is None:
        return Shape(text, ())
    dims = tuple(int(d.lstrip("<=")) for d in found[2].split(",") if d)  # <=8: at most so many
    return Shape(found[1], dims, int(_first(r"S\((\d+)\)", found[3]) or 0))


def _parts(text: str) -> Iterator[str]:
    """Of a tuple, split at its commas."""
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    if last := text[start:].strip():
        yield last


@functools.cache
def _bits(dtype: str) -> int:
    return BITS[dtype] if dtype in BITS else int(_first(r"[a-z](\d+)", dtype) or 8)


def _element(inside: Computation, tuple_: Instruction, at: int) -> Instruction | None:
    return inside.instructions[tuple_.operands[at]] if tuple_.opcode == "tuple" else None


def _constant(inside: Computation, x: Instruction | None) -> int | None:
    while x is not None and x.opcode in ("copy", "bitcast", "convert", "reshape"):
        x = inside.instructions[x.operands[0]]
    number = x is not None and x.opcode == "constant" and re.fullmatch(r"-?\d+", x.literal)
    return int(x.literal) if x is not None and number else None


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
