"""The vocabulary of tensor names: what a model's parameters are called in the files of others.

A table is a tuple of entries (ours, theirs, layout), read by `lm.hub.binding` in both directions. With GPT-2's

    ("body/stack/{layer}/mlp/up/{leaf}", "transformer.h.{layer}.mlp.c_fc.{leaf}", SAME)

`transformer.h.3.mlp.c_fc.weight` is the fourth layer of our `body/stack/0/0/mlp/up/w`, stored as ours is.

- `theirs` is the other side's tensor name, `ours` the path of our parameter, or a tuple of paths where they keep
  several of ours in one tensor; a tie's alias may stand there too. No path at all, (), is a tensor that files
  carry and that we drop; `{any}` stands for anything in its name.
- `{layer}` is a layer's number in their name, and its place in the stack (segment and position) in ours. Without it in
  their name it is the first layer: of a stack within a head, that has one.
- `{leaf}` stands for `w` here and `weight` there, then for `b` and `bias`.
- `{expert}` or `{heads}` in their name: they keep one tensor for each index of our axis of that name.
- Entries of tensors that a model does not have (biases, the other kind of layer) are passed over, so that one table
  serves all shapes of a family. Where several entries name one tensor of ours, any is read, the first is written.

Tables are put together from `ModuleNames`, the modules of a layer: `attention_names`, `mlp_names`, `norm_names`, which
`tower_names` places in a stack.
"""

import dataclasses
from collections.abc import Callable, Iterable
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
    swapped: the halves of a matrix's inputs stand in the other order.
    merged: their first axis is the first two of what is above: [experts * out, in].
    optional: files may lack it, and ours keeps its initial value."""

    transpose: bool = False
    groups: int | str = 1
    only: Callable[[Any], bool] | None = None
    split: int | str | None = None
    convolution: bool = False
    swapped: bool = False
    merged: bool = False
    optional: bool = False


Entry = tuple[str | tuple[str, ...], str, Layout]
TensorNames = tuple[Entry, ...]
ModuleNames = tuple[tuple, ...]  # modules below some path: (our path or paths, their name[, layout])

OPTIONAL = Layout(optional=True)
SAME, LINEAR, CONVOLUTION = Layout(), Layout(transpose=True), Layout(transpose=True, convolution=True)
SWAPPED = Layout(transpose=True, swapped=True)
BY_HEAD = Layout(transpose=True, groups="heads")  # fused queries, keys and values: [heads, 3, head_dim]
BY_KV_HEAD = Layout(transpose=True, groups="kv")  # [kv heads, heads / kv heads + 2, head_dim]

LAYER = "body/stack/{layer}/"  # where a layer of a one-tower model is


def entries(ours: str, theirs: str, *parts: tuple) -> TensorNames:
    """Entries for everything below two paths: to each of `parts` the leaves, weight and bias, are added. The default
    layout is that of `torch.nn.Linear`; norms do not mind."""
    found: list[Entry] = []
    for path, name, *layout in parts:
        paths = (path,) if isinstance(path, str) else path
        ends = tuple(f"{ours}{p}/{{leaf}}" for p in paths)
        found.append((ends if len(ends) > 1 else ends[0], f"{theirs}{name}.{{leaf}}", layout[0] if layout else LINEAR))
    return tuple(found)


def ignored(*theirs: str) -> TensorNames:
    """Buffers that files carry and we drop."""
    return tuple(((), name, SAME) for name in theirs)


def ignored_modules(*names: str) -> TensorNames:
    """Linear maps or norms that files may carry and a class does not have."""
    return ignored(*(f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")))


# ---------------------------------------------------------------------------------------------------------------------
# Parts of a layer


def attention_names(
    theirs: str, q: str = "q_proj", k: str = "k_proj", v: str = "v_proj", o: str = "o_proj", *, part: str = "attention"
) -> ModuleNames:
    """Four projections; `part`: the sub-layer, "attention" or "cross"."""
    return tuple((f"{part}/{x}", f"{theirs}{name}") for x, name in zip("qkvo", (q, k, v, o), strict=True))


def fused_names(
    qkv: str, o: str, layout: Layout = LINEAR, out_layout: Layout = LINEAR, order: str = "qkv"
) -> ModuleNames:
    """Queries, keys and values in one projection."""
    return ((tuple(f"attention/{x}" for x in order), qkv, layout), ("attention/o", o, out_layout))


def mlp_names(up: str, down: str, gate: str | None = None, layout: Layout = LINEAR) -> ModuleNames:
    gated = (("mlp/gate", gate, layout),) if gate else ()
    return (*gated, ("mlp/up", up, layout), ("mlp/down", down, layout))


def norm_names(attention: str, mlp: str) -> ModuleNames:
    """The norm of each sub-layer, before or after it."""
    return (("attention_norm", attention), ("mlp_norm", mlp))


def sandwich_names(attention: tuple[str, str], mlp: tuple[str, str]) -> ModuleNames:
    """Norms before and after each sub-layer."""
    both = (("attention", attention), ("mlp", mlp))
    return tuple(
        (f"{part}_norm/{at}", name) for part, names in both for at, name in zip(("before", "after"), names, strict=True)
    )


def side_by_side(*parts: Iterable[tuple]) -> ModuleNames:
    """The same parts in layers whose attention and MLP are side by side."""

    def below(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return f"both/{path}" if isinstance(path, str) else tuple(f"both/{p}" for p in path)

    return tuple((below(path), *rest) for group in parts for path, *rest in group)


# ---------------------------------------------------------------------------------------------------------------------
# Towers


def tower_names(
    ours: str,
    theirs: str,
    *layer: Iterable[tuple],
    layers: str,
    token: str,
    position: str | None = None,
    types: str | None = None,
    embed_norm: str | None = None,
    norm: str | None = None,
) -> TensorNames:
    """What the tensors of a tower are called: of `ours` ("body"; "encoder" or "decoder"), below the prefix `theirs`.

    layer: the parts of a layer
    layers: the list of layers
    token, position, types: tables at the embedding
    embed_norm, norm: of the embedding, and the final one"""
    tables = (("token", token), ("position/w", position), ("types/w", types))
    return (
        *((f"{ours}/embed/{path}", f"{theirs}{name}.weight", SAME) for path, name in tables if name),
        *(entries(f"{ours}/embed/", theirs, ("norm", embed_norm)) if embed_norm else ()),
        *entries(
            f"{ours}/stack/{{layer}}/", f"{theirs}{layers}.{{layer}}.", *(part for group in layer for part in group)
        ),
        *(entries(f"{ours}/stack/", theirs, ("norm", norm)) if norm else ()),
    )


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
