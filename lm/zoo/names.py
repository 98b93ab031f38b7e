"""The vocabulary of name tables, by which a family says what its tensors are called elsewhere.

A table is a tuple of entries (ours, theirs, layout), read by `lm.hub.names` in both directions:

- `theirs` is the other side's tensor name, `ours` the path of our parameter, or a tuple of paths where they keep
  several of ours in one tensor; a tie's alias may stand there too. No path at all, (), is a tensor that files
  carry and that we drop; `{any}` stands for anything in its name.
- `{layer}` is a layer's number in their name, and its place in the stack (segment and position) in ours.
- `{leaf}` stands for `w` here and `weight` there, then for `b` and `bias`.
- `{expert}` or `{heads}` in their name: they keep one tensor for each index of our axis of that name.
- Entries of tensors that a model does not have (biases, the other kind of layer) are passed over, so that one table
  serves all shapes of a family. Where several entries name one tensor of ours, any is read, the first is written.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """How their tensor holds ours.

    transpose: theirs is [..., out, in] (a `torch.nn.Linear`), ours [..., in, out]; vectors stay as they are.
    groups: the output axis consists of that many groups, each with an equal share of every part, so that the axis of
    fused queries, keys and values is [q|k|v] with one group and [heads, 3, head_dim] with as many groups as heads. A
    string names an attribute of the component that owns the tensors: "heads", "kv", "d_ff" (alternating columns).
    only: whether the entry is for a component; for where they name like tensors of different kinds apart.
    split: their last axis is two, that many (or as the attribute says) times the rest: [d, heads, head_dim].
    convolution: theirs is [out, in / groups, width] (a `torch.nn.Conv1d`), ours [groups, in / groups * width, out /
    groups], with as many outputs as inputs.
    optional: files may lack it, and ours keeps its initial value."""

    transpose: bool = False
    groups: int | str = 1
    only: Callable[[Any], bool] | None = None
    split: int | str | None = None
    convolution: bool = False
    optional: bool = False


Entry = tuple[str | tuple[str, ...], str, Layout]
TensorNames = tuple[Entry, ...]

OPTIONAL = Layout(optional=True)
SAME, LINEAR, CONVOLUTION = Layout(), Layout(transpose=True), Layout(transpose=True, convolution=True)

LAYER = "body/stack/{layer}/"  # where a layer of a one-tower model is
QKV = tuple(f"attention/{x}" for x in "qkv")


def rows(ours: str, theirs: str, *entries: tuple) -> TensorNames:
    """Entries for everything below two paths: each is (our path or paths, their name[, layout]), to which the leaves,
    weight and bias, are added. The default layout is that of `torch.nn.Linear`; norms do not mind."""
    found: list[Entry] = []
    for path, name, *layout in entries:
        paths = (path,) if isinstance(path, str) else path
        ends = tuple(f"{ours}{p}/{{leaf}}" for p in paths)
        found.append((ends if len(ends) > 1 else ends[0], f"{theirs}{name}.{{leaf}}", layout[0] if layout else LINEAR))
    return tuple(found)


def unused(*theirs: str) -> TensorNames:
    """Buffers that files carry and we drop."""
    return tuple(((), name, SAME) for name in theirs)


def moved(names: TensorNames, tower: str, old: str, new: str) -> TensorNames:
    """The names of a model of one tower, for that tower of an encoder-decoder: `new` in place of the prefix `old`, and
    without those that do not begin so."""

    def path(ours: str) -> str:
        return tower + ours.removeprefix("body") if ours.startswith("body/") else ours

    return tuple(
        (path(ours) if isinstance(ours, str) else tuple(map(path, ours)), new + theirs.removeprefix(old), layout)
        for ours, theirs, layout in names
        if theirs.startswith(old)
    )
