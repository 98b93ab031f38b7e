"""A block: named sub-layers, each passed through the residual wiring."""

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.model.kv_sources import CacheShape
from lm.model.layers import Norm
from lm.model.residual import Carry, ResiDual, Residual

Array = jax.Array


@runtime_checkable
class SubLayer(Protocol):
    """The component protocol. A sub-layer that owns buffers also has `update(p, out) -> p`, called after the
    optimizer's step with the statistics that its call left in `aux`."""

    def spec(self, d: int) -> Tree: ...

    def cache(self, d: int, shape: CacheShape) -> Tree: ...

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]: ...


Named = tuple[tuple[str, Any], ...]  # ((name, SubLayer), ...): the names become parameter paths


def _update(parts: Named, p: Tree, aux: Tree) -> Tree:
    return p | {name: part.update(p[name], aux[name]) for name, part in parts if hasattr(part, "update")}


def _cache_of(cache: Tree, name: str) -> Tree:
    return None if cache is None else cache[name]


@component
class Parallel:
    """The sum of sub-layers that read the same input (GPT-J, PaLM); in a `Plain` residual with `norms` of their own it
    is GPT-NeoX's block."""

    parts: Named
    norms: Norm | None = None  # one for each part, on its input

    def spec(self, d: int) -> Tree:
        spec = {name: part.spec(d) for name, part in self.parts}
        return spec | ({f"{name}_norm": self.norms.spec(d) for name, _ in self.parts} if self.norms else {})

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return {name: part.cache(d, shape) for name, part in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        ys, new = [], {}
        for name, part in self.parts:
            normed = self.norms(p[f"{name}_norm"], x) if self.norms else x
            y, new[name] = part(p[name], normed, ctx.at(name), _cache_of(cache, name), aux.setdefault(name, {}))
            ys.append(y)
        return sum(ys[1:], ys[0]), None if cache is None else new

    def update(self, p: Tree, aux: Tree) -> Tree:
        return _update(self.parts, p, aux)


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

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return {name: part.cache(d, shape) for name, part in self.parts}

    def __call__(self, p: Tree, carry: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        """carry, cache -> carry, cache, aux (statistics and records by part)."""
        new: dict[str, Tree] = {}
        aux: dict[str, Tree] = {}
        carry = self.norm(p.get("norm", {}), carry) if self.norm else carry
        for name, part in self.parts:
            inner, aux[name] = ctx.at(name), {}
            call = functools.partial(part, p[name], ctx=inner, cache=_cache_of(cache, name), aux=aux[name])
            carry, new[name] = self.residual(p.get(f"{name}_norm", {}), carry, call, inner)
        return carry, None if cache is None else new, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return _update(self.parts, p, aux)


@component(was=("Branched",))
class ParallelConvolution:
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

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return self.block.cache(d, shape) | {"branch": self.branch.cache(d, shape)}

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        y, new, aux = self.block(p, x, ctx, cache)
        aux["branch"] = {}
        beside, own = self.branch(p["branch"], x, ctx.at("branch"), _cache_of(cache, "branch"), aux["branch"])
        y = self.norm(p["branch_norm"], y + beside) if self.norm else y + beside
        return y, None if new is None else new | {"branch": own}, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return _update((("branch", self.branch),), self.block.update(p, aux), aux)


@component(was=("Requeried",))
class EnhancedDecoderLayer:
    """A layer that asks `times` times about its input x: first by x plus absolute positions, then by what it found.
    Keys and values are x's each time (the enhanced mask decoder, which DeBERTa has for its last layer in pretraining:
    He et al. 2021, arXiv 2006.03654, section 3.2, and the published code).

    The block's attention reads the rows `context`, as `CrossKV("context")` does; `table` names the stack's table."""

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

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return self.block.cache(d, shape)

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        if self.table not in ctx.shared:
            raise UserError(
                f"a layer reads the table {self.table!r}, which its stack lacks{nearest(self.table, ctx.shared)}"
            )
        positions, rows = ctx.shared[self.table], ctx.rows
        seen = {f"{self.context}/{name}": rows[name] for name in ("positions", "segments") if name in rows}
        inner = ctx.replace(rows=rows | seen | {self.context: x})
        queries = x + jnp.take(positions, rows["positions"], axis=0, mode="clip").astype(x.dtype)
        for i in range(self.times):
            queries, new, aux = self.block(p, queries, inner.at(str(i)), cache)
        return queries, new, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return self.block.update(p, aux)


Layer = Block | ParallelConvolution | EnhancedDecoderLayer
