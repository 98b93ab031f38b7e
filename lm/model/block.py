"""A block: named sub-layers, each passed through the residual wiring."""

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.model.layers import Norm
from lm.model.residual import Carry, ResiDual, Residual
from lm.model.sources import Room

Array = jax.Array


@runtime_checkable
class SubLayer(Protocol):
    """The component protocol. A sub-layer that owns buffers also has `update(p, out) -> p`, called after the
    optimizer's step with the statistics that its call left in `out`."""

    def spec(self, d: int) -> Tree: ...

    def slots(self, d: int, room: Room) -> Tree: ...

    def __call__(self, p: Tree, x: Array, ctx: Ctx, slot: Tree, out: dict) -> tuple[Array, Tree]: ...


Named = tuple[tuple[str, Any], ...]  # ((name, SubLayer), ...): the names become parameter paths


def _update(parts: Named, p: Tree, out: Tree) -> Tree:
    return p | {name: part.update(p[name], out[name]) for name, part in parts if hasattr(part, "update")}


def _slot(slots: Tree, name: str) -> Tree:
    return None if slots is None else slots[name]


@component
class Parallel:
    """The sum of sub-layers that read the same input (GPT-J, PaLM); in a `Plain` residual with `norms` of their own it
    is GPT-NeoX's block."""

    parts: Named
    norms: Norm | None = None  # one for each part, on its input

    def spec(self, d: int) -> Tree:
        spec = {name: part.spec(d) for name, part in self.parts}
        return spec | ({f"{name}_norm": self.norms.spec(d) for name, _ in self.parts} if self.norms else {})

    def slots(self, d: int, room: Room) -> Tree:
        return {name: part.slots(d, room) for name, part in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx, slot: Tree, out: dict) -> tuple[Array, Tree]:
        ys, new = [], {}
        for name, part in self.parts:
            normed = self.norms(p[f"{name}_norm"], x) if self.norms else x
            y, new[name] = part(p[name], normed, ctx.at(name), _slot(slot, name), out.setdefault(name, {}))
            ys.append(y)
        return sum(ys[1:], ys[0]), None if slot is None else new

    def update(self, p: Tree, out: Tree) -> Tree:
        return _update(self.parts, p, out)


@component
class Block:
    """One layer: each part of `parts` in turn, wired by `residual`, which has its own parameters for every part. With
    `norm` the single stream that comes in is normed first (a final norm in front of PanGu-alpha's query layer)."""

    parts: Named
    residual: Residual
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if self.norm and isinstance(self.residual, ResiDual):
            raise UserError("a block norms one stream, but ResiDual carries two: choose another residual wiring")

    def spec(self, d: int) -> Tree:
        norms = {f"{name}_norm": self.residual.spec(d) for name, _ in self.parts}
        norms |= {"norm": self.norm.spec(d)} if self.norm else {}
        return {name: part.spec(d) for name, part in self.parts} | {n: s for n, s in norms.items() if s}

    def slots(self, d: int, room: Room) -> Tree:
        return {name: part.slots(d, room) for name, part in self.parts}

    def __call__(self, p: Tree, carry: Carry, ctx: Ctx, slot: Tree) -> tuple[Carry, Tree, Tree]:
        """carry, slots -> carry, slots, out (statistics and records by part)."""
        new: dict[str, Tree] = {}
        out: dict[str, Tree] = {}
        carry = self.norm(p.get("norm", {}), carry) if self.norm else carry
        for name, part in self.parts:
            inner, out[name] = ctx.at(name), {}
            call = functools.partial(part, p[name], ctx=inner, slot=_slot(slot, name), out=out[name])
            carry, new[name] = self.residual(p.get(f"{name}_norm", {}), carry, call, inner)
        return carry, None if slot is None else new, out

    def update(self, p: Tree, out: Tree) -> Tree:
        return _update(self.parts, p, out)


@component
class Branched:
    """A layer with a branch beside it: norm(block(x) + branch(x)), for blocks that carry one stream (DeBERTa v2: a
    convolution beside the first layer, He et al. 2021, arXiv 2006.03654)."""

    block: Block
    branch: SubLayer
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if isinstance(self.residual, ResiDual):
            raise UserError("a branch joins one stream, but ResiDual carries two: choose another residual wiring")

    @property
    def parts(self) -> Named:
        return self.block.parts

    @property
    def residual(self) -> Residual:
        return self.block.residual

    def spec(self, d: int) -> Tree:
        """The block's own, and the branch's beside it."""
        branch = {"branch": self.branch.spec(d)} | ({"branch_norm": self.norm.spec(d)} if self.norm else {})
        return self.block.spec(d) | branch

    def slots(self, d: int, room: Room) -> Tree:
        return self.block.slots(d, room) | {"branch": self.branch.slots(d, room)}

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, slot: Tree) -> tuple[Carry, Tree, Tree]:
        y, new, out = self.block(p, x, ctx, slot)
        out["branch"] = {}
        beside, own = self.branch(p["branch"], x, ctx.at("branch"), _slot(slot, "branch"), out["branch"])
        y = self.norm(p["branch_norm"], y + beside) if self.norm else y + beside
        return y, None if new is None else new | {"branch": own}, out

    def update(self, p: Tree, out: Tree) -> Tree:
        return _update((("branch", self.branch),), self.block.update(p, out), out)


@component
class Requeried:
    """A layer that asks `times` times about its input x: first by x plus absolute positions, then by what it found.
    Keys and values are x's each time (the enhanced mask decoder, which DeBERTa has for its last layer in pretraining:
    He et al. 2021, arXiv 2006.03654, section 3.2, and the published code).

    The block's attention reads the rows `context`, as `Cross("context")` does; `table` of the stack holds positions."""

    block: Block
    times: int = 2
    table: str = "absolute"
    context: str = "context"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise UserError(f"times={self.times} a layer is asked must be at least 1")

    @property
    def parts(self) -> Named:
        return self.block.parts

    @property
    def residual(self) -> Residual:
        return self.block.residual

    def spec(self, d: int) -> Tree:
        return self.block.spec(d)

    def slots(self, d: int, room: Room) -> Tree:
        return self.block.slots(d, room)

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, slot: Tree) -> tuple[Carry, Tree, Tree]:
        if self.table not in ctx.shared:
            raise UserError(
                f"a layer reads the table {self.table!r}, which its stack lacks{nearest(self.table, ctx.shared)}"
            )
        positions, rows = ctx.shared[self.table], ctx.rows
        seen = {f"{self.context}/{name}": rows[name] for name in ("positions", "segments") if name in rows}
        inner = ctx.replace(rows=rows | seen | {self.context: x})
        queries = x + jnp.take(positions, rows["positions"], axis=0, mode="clip").astype(x.dtype)
        for i in range(self.times):
            queries, new, out = self.block(p, queries, inner.at(str(i)), slot)
        return queries, new, out

    def update(self, p: Tree, out: Tree) -> Tree:
        return self.block.update(p, out)


Layer = Block | Branched | Requeried
