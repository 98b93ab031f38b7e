"""Models and families as people read them: a tree whose repeated layers stand there once, and tables of sizes."""

import dataclasses
import inspect
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from rich.table import Table
from rich.text import Text

from lm.core.ownership import Part, parts
from lm.core.param import Param, Tree, count
from lm.inspect.cost import forward_flops
from lm.model.special.resize import Resize
from lm.model.stack import LayerGroup, Stack
from lm.model.transformer import EncoderDecoder, Model
from lm.zoo.family import Family
from lm.zoo.registry import MODULES

LENGTH = 2048  # tokens of the text in which FLOPs are counted
FLOPS = (
    f"FLOPs per token: forward pass, head included, in texts of {LENGTH:,} tokens or as many as there are positions; "
    "with an encoder and a decoder, texts of that length on both sides, per token of either"
)


def flops_per_token(model: Model) -> float:
    """Of the forward pass over `LENGTH` tokens, or as many as the model has positions for; over as many on each side,
    and per token of either, for an encoder-decoder."""
    length = min(LENGTH, model.max_length or LENGTH)
    if isinstance(model, EncoderDecoder):
        length = min(length, model.encoder.embed.max_length or length)
        return forward_flops(model, length, length) / (2 * length)
    return forward_flops(model, length) / length


def short(number: float) -> str:
    """7241732096 -> 7.24 G: three digits."""
    if number < 1000:
        return f"{number:.0f}"
    power = min(5, int(math.log10(number) // 3))
    scaled = number / 1000**power
    return f"{scaled:.{2 - int(math.log10(scaled))}f} {' KMGTP'[power]}"


# ---------------------------------------------------------------------------------------------------------------------
# Families


def columns(width: int, *, header: bool) -> Table:
    """An empty table of sizes; `width` is that of their names, so that tables of several families stand in line."""
    result = Table(box=None, show_header=header, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    result.add_column("  size", width=width, style="cyan", no_wrap=True)
    result.add_column("parameters", width=17, justify="right", style="green", no_wrap=True)
    result.add_column("FLOPs", width=8, justify="right", no_wrap=True)
    result.add_column("shape", style="dim")
    return result


def sizes(family: Family, width: int, *, knobs: bool = False) -> Table:
    """The sizes of a family, with all that each sets if `knobs`; counted from specs, nothing is allocated."""
    result = columns(width, header=knobs)
    for size, given in family.sizes.items():
        model = family.make(**given)
        shown = given if knobs else {k: v for k, v in given.items() if k in ("layers", "d_model", "heads")}
        shape = " ".join(f"{k}={_short(v)}" for k, v in shown.items())
        result.add_row(f"  {size}", f"{count(model.spec()):,}", short(flops_per_token(model)), shape)
    return result


def heading(name: str, family: Family) -> Text:
    return Text(name, "bold").append(f"  {family.paper}", "dim")


def about(family: Family) -> str:
    """What the family's file says about it."""
    return next((inspect.getdoc(module) or "" for module in MODULES if family in module.FAMILIES.values()), "")


def signature(family: Family) -> str:
    """The knobs of the zoo function, with their defaults."""
    given = inspect.signature(family.make).parameters.values()
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={_short(p.default)}" for p in given)


# ---------------------------------------------------------------------------------------------------------------------
# Trees


class TreeLine(NamedTuple):
    """One line of a tree: a component with those of its knobs that are not the default's, and its tensors."""

    guide: str  # the lines that lead to it
    below: str  # the lines that lead past it, to what comes next
    name: str
    kind: str
    knobs: tuple[str, ...]
    parameters: str
    tensors: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.kind}({', '.join(self.knobs)})" if self.knobs else self.kind


class _Part(NamedTuple):
    """A component within another: what it is called, where it stands in the owner's spec, its own spec without layers'
    axes, and how often it occurs, each time with parameters of its own unless `tied`."""

    name: str
    path: str
    component: Any
    spec: Tree
    repeats: int = 1
    tied: bool = False


class _Inside(NamedTuple):
    """The parts of a component, the fields that hold them, and the keys of the spec that are theirs."""

    parts: list[_Part]
    fields: set[str]
    keys: set[str]


def rows(model: Model) -> list[TreeLine]:
    """The tree of a model, line by line."""
    return list(_rows(_Part("", "", model, model.spec()), "", "", dict(model.ties), 0))


def plain(model: Model) -> str:
    """The tree as text, one line for each part, however long: what tests compare."""
    lines = (f"{r.guide}{r.name}{r.text}  # {r.parameters}: {', '.join(r.tensors)}".rstrip(" :") for r in rows(model))
    return "".join(f"{line}\n" for line in lines)


def tree(model: Model, width: int) -> Table:
    """The tree in columns: components, numbers of parameters, tensors."""
    found = rows(model)
    numbers = max(len(row.parameters) for row in found)
    shapes = min(34, max(len(t) for row in found for t in (*row.tensors, "")))
    if width - numbers - shapes - 4 < 36:
        shapes = 0  # no room for them
    longest = max(len(row.guide + row.name + row.text) for row in found)
    left = max(24, min(width - numbers - shapes - 4, longest))
    result = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    result.add_column(width=left, no_wrap=True)
    result.add_column(width=numbers, justify="right", style="green", no_wrap=True)
    if shapes:
        result.add_column(width=shapes, style="dim", no_wrap=True)
    for row in found:
        tensors = _filled((f"{tensor}  " for tensor in row.tensors), shapes) if shapes else []
        cells = (_wrapped(row, left, len(tensors)), row.parameters, "\n".join(tensors))
        result.add_row(*cells[: len(result.columns)])
    return result


def _wrapped(row: TreeLine, width: int, lines: int) -> Text:
    """The row's text in at least so many lines, with its guides."""
    whole = row.name + row.text
    room, indent = width - len(row.below), "    "
    pieces = re.split(r"(?<=[ (])(?<!× )", whole)
    broken = (re.split(r"(?<==)", piece) if len(indent + piece.rstrip()) > room else [piece] for piece in pieces)
    first, *more = _filled(itertools.chain.from_iterable(broken), room, indent)
    kind = len(row.name) + len(row.kind)
    text = Text(row.guide, "dim").append(first[: len(row.name)], "cyan not dim")
    text.append(first[len(row.name) : kind], "bold not dim").append(first[kind:], "not dim")
    for line in (*more, *[""] * (lines - 1 - len(more))):
        text.append(f"\n{row.below}").append(line, "not dim")
    return text


def _filled(pieces: Iterable[str], width: int, indent: str = "") -> list[str]:
    """Pieces side by side where a line has room for them, further lines indented."""
    lines = [""]
    for piece in pieces:
        if lines[-1].strip() and len(lines[-1] + piece.rstrip()) > width:
            lines.append(indent)
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _rows(part: _Part, guide: str, ahead: str, ties: dict[str, str], d: int) -> Iterator[TreeLine]:
    d = getattr(part.component, "d_model", d)
    inside = _inside(part.component, part.spec, d)
    rest = {k: v for k, v in part.spec.items() if k not in inside.keys}
    aliases = [(a.removeprefix(f"{part.path}/"), o) for a, o in ties.items() if a.rpartition("/")[0] == part.path]
    knobs = tuple(f"{name}={_short(v)}" for name, v in _knobs(part.component) if name not in {*inside.fields, "ties"})
    total = count(part.spec)
    number = f"{total:,}" if part.repeats == 1 or not total else f"{part.repeats} × {total:,}"
    kind = type(part.component).__name__
    if isinstance(part.component, LayerGroup):
        kind = f"pattern of {len(part.component.pattern)}"
    if part.repeats > 1:
        kind = f"{part.repeats} × {kind}"
    if part.tied:
        number, kind = f"{total:,}", kind.replace("× ", "× the same ")
    yield TreeLine(
        guide=guide,
        below=ahead + ("│ " if inside.parts else "  "),
        name=f"{part.name}: " if part.name else "",
        kind=kind,
        knobs=knobs,
        parameters=number,
        tensors=(*_tensors(rest), *(f"{alias} = {owner}" for alias, owner in aliases)),
    )
    for i, child in enumerate(inside.parts):
        last = i + 1 == len(inside.parts)
        child = child._replace(path=f"{part.path}/{child.path}".lstrip("/"))
        yield from _rows(child, ahead + ("└ " if last else "├ "), ahead + ("  " if last else "│ "), ties, d)


def _inside(component: Any, spec: Tree, d: int) -> _Inside:
    if isinstance(component, LayerGroup):
        return _Inside(_runs(component, spec, d, ""), {"pattern", "repeats", "tied"}, set(spec))
    found = [] if not isinstance(component, Stack) else _segments(component.segments, spec, d)
    held = [part for part in parts(component, spec) if not (found and part.field == "segments")]
    found.extend(map(_part, held))
    fields = {part.field for part in held} | ({"segments"} if isinstance(component, Stack) else set())
    return _Inside(found, fields, {part.path.split("/")[0] for part in found})


def _part(part: Part) -> _Part:
    name = part.path if part.key is None else str(part.key) if isinstance(part.key, str) else f"{part.field} {part.key}"
    each, n = _without(part.spec, "expert") if part.path == "experts" else (part.spec, 1)
    return _Part(name, part.path, part.component, each, n)


def _segments(segments: tuple[LayerGroup | Resize, ...], spec: Tree, d: int) -> list[_Part]:
    """A stack's layers, numbered from 0. Those of a pattern stand there once."""
    parts: list[_Part] = []
    first = 0
    for i, segment in enumerate(segments):
        own = spec[str(i)] if segment.tied else _without(spec[str(i)], "layers")[0]
        name = f"layers {_span(first, segment.layers)}"
        if isinstance(segment, Resize):
            parts.append(_Part("", str(i), segment, own))
        elif len(segment.pattern) == 1:
            block = segment.pattern[0]
            one = _ordered(own["0"], block.spec(d))
            name = name if segment.layers > 1 else name.replace("layers", "layer")
            parts.append(_Part(name, f"{i}/0", block, one, segment.repeats, segment.tied))
        elif segment.repeats == 1:
            parts.extend(_runs(segment, own, d, f"{i}/", first))
        else:
            parts.append(_Part(name, str(i), segment, own, segment.repeats, segment.tied))
        first += segment.layers
    return parts


def _runs(segment: LayerGroup, spec: Tree, d: int, ahead: str, first: int | None = None) -> list[_Part]:
    """The layers of a pattern, those in a row that are equal together; numbered from `first`, or by position from 1."""
    parts, index = [], 0
    for block, run in itertools.groupby(segment.pattern):
        n = len(list(run))
        name = f"{_span(1 + index, n)} of {len(segment.pattern)}"
        if first is not None:
            name = f"layer{'s' * (n > 1)} {_span(first + index, n)}"
        one = _ordered(spec[str(index)], block.spec(d))
        parts.append(_Part(name, f"{ahead}{index}", block, one, n))
        index += n
    return parts


def _span(first: int, n: int) -> str:
    return str(first) if n == 1 else f"{first}–{first + n - 1}"


def _without(spec: Tree, axis: str) -> tuple[Tree, int]:
    """One layer's (or expert's) spec, and how many there are."""
    sizes = {p.shape[0] for p in jax.tree.leaves(spec) if p.axes[:1] == (axis,)}
    inner = lambda p: dataclasses.replace(p, shape=p.shape[1:], axes=p.axes[1:]) if p.axes[:1] == (axis,) else p  # noqa: E731
    return jax.tree.map(inner, spec), max(sizes, default=1)


def _ordered(spec: Tree, like: Tree) -> Tree:
    """`spec`, whose keys a stack has sorted, in the order in which a component names them."""
    return {k: _ordered(spec[k], v) if isinstance(v, dict) else spec[k] for k, v in like.items() if k in spec}


def _tensors(spec: Tree, path: str = "") -> tuple[str, ...]:
    """Names and shapes: `q 4096×4096 + 4096` is a matrix with a bias."""
    found: list[str] = []
    for key, part in spec.items():
        if isinstance(part, Param):
            shape = "×".join(map(str, part.shape)) or "1"
            if key == "b" and found and "w" in spec:
                found[-1] += f" + {shape}"
            else:
                mark = " (buffer)" if part.kind == "buffer" else ""
                found.append((path if key == "w" else f"{path}/{key}").strip("/") + f" {shape}{mark}")
        else:
            found.extend(_tensors(part, f"{path}/{key}"))
    return tuple(text.strip() for text in found)


def _knobs(component: Any) -> Iterator[tuple[str, Any]]:
    """Fields that are not what they are by default."""
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        if f.default is dataclasses.MISSING or value != f.default:
            yield f.name, value


def _short(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        inner = ", ".join(f"{name}={_short(v)}" for name, v in _knobs(value))
        return f"{type(value).__name__}({inner})" if inner else type(value).__name__
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return f"{value:.7g}" if isinstance(value, float) else str(value)
