"""A block: named sub-layers, each passed through the residual wiring."""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax

from lm.core.component import component
from lm.core.ctx import Ctx, tap
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.remat import named
from lm.model.cache import CacheShape
from lm.model.kv_sources import CrossKV
from lm.model.layers import Norm
from lm.model.masks import Bidirectional
from lm.model.order import any_order
from lm.model.residual import Carry, ResiDual, Residual

Array = jax.Array


@runtime_checkable
class SubLayer(Protocol):
    """A part of a layer: attention, MLP, experts.

    One that owns buffers also has `update(p, aux) -> p`, called after the optimizer's step with what its call left in
    `aux`; one that works on tokens in any order says so by `any_order` (`lm.model.order`)."""

    def spec(self, d: int) -> Tree:
        """Its parameters, a tree of `Param`, in a model of width d."""

    def cache(self, d: int, shape: CacheShape) -> Tree:
        """Its state before the first call of a generation (`lm.model.cache`); None if it keeps none."""

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        """x [B, S, D] -> y [B, S, D] and the new cache (None where `cache` is None). What else is to be known of the
        call, statistics and records, it leaves in `aux`."""


Named = tuple[tuple[str, Any], ...]  # ((name, SubLayer), ...): the names become parameter paths


def check_parts(parts: Named) -> None:
    """Raise `UserError` for one that is no sub-layer."""
    for name, part in parts:
        if not isinstance(part, SubLayer):
            raise UserError(
                f"part {name!r} of a layer is a {type(part).__name__}, which is no sub-layer: give it spec(d), "
                "cache(d, shape) and __call__(p, x, ctx, cache, aux)"
            )


def update_parts(parts: Named, p: Tree, aux: Tree) -> Tree:
    """`p`, after those of the parts that own buffers have moved them."""
    return p | {name: part.update(p[name], aux[name]) for name, part in parts if hasattr(part, "update")}


def cache_of(cache: Tree, name: str) -> Tree:
    """The cache of the part of that name; None where nothing is cached."""
    return None if cache is None else cache[name]


@component
class Parallel:
    """The sum of sub-layers that read the same input (GPT-J, PaLM); in a `Plain` residual with `norms` of their own it
    is GPT-NeoX's block."""

    parts: Named
    norms: Norm | None = None  # one for each part, on its input

    def __post_init__(self) -> None:
        check_parts(self.parts)

    def spec(self, d: int) -> Tree:
        spec = {name: part.spec(d) for name, part in self.parts}
        return spec | ({f"{name}_norm": self.norms.spec(d) for name, _ in self.parts} if self.norms else {})

    @property
    def any_order(self) -> bool:
        return all(any_order(part) for _, part in self.parts)

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return {name: part.cache(d, shape) for name, part in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        ys, new = [], {}
        for name, part in self.parts:
            normed = self.norms(p[f"{name}_norm"], x) if self.norms else x
            y, new[name] = part(p[name], normed, ctx.at(name), cache_of(cache, name), aux.setdefault(name, {}))
            ys.append(y)
        return sum(ys[1:], ys[0]), None if cache is None else new

    def update(self, p: Tree, aux: Tree) -> Tree:
        return update_parts(self.parts, p, aux)


@component
class Block:
    """One layer: each part of `parts` in turn, wired by `residual`, which has its own parameters for every part. With
    `norm` the single stream that comes in is normed first (a final norm in front of PanGu-alpha's query layer). Records
    in `aux`, if asked, what each part gives: its "sublayer" [B, S, D]."""

    parts: Named
    residual: Residual
    norm: Norm | None = None

    def __post_init__(self) -> None:
        check_parts(self.parts)
        if self.norm and isinstance(self.residual, ResiDual):
            raise UserError("a block norms one stream, but ResiDual carries two: choose another residual wiring")

    def spec(self, d: int) -> Tree:
        norms = {f"{name}_norm": self.residual.spec(d) for name, _ in self.parts}
        norms |= {"norm": self.norm.spec(d)} if self.norm else {}
        return {name: part.spec(d) for name, part in self.parts} | {n: s for n, s in norms.items() if s}

    @property
    def any_order(self) -> bool:
        return all(any_order(part) for _, part in self.parts) and not self.residual.dropout

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return {name: part.cache(d, shape) for name, part in self.parts}

    def __call__(self, p: Tree, carry: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        """carry, cache -> carry, cache, aux (statistics and records by part)."""
        new: dict[str, Tree] = {}
        aux: dict[str, Tree] = {}
        carry = self.norm(p.get("norm", {}), carry) if self.norm else carry
        for name, part in self.parts:
            inner, aux[name] = ctx.at(name), {}
            call = functools.partial(_called, part, p[name], inner, cache_of(cache, name), aux[name])
            carry, new[name] = self.residual(p.get(f"{name}_norm", {}), carry, call, inner)
        return carry, None if cache is None else new, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return update_parts(self.parts, p, aux)


def _called(part: SubLayer, p: Tree, ctx: Ctx, cache: Tree, aux: dict, x: Array) -> tuple[Array, Tree]:
    y, cache = part(p, x, ctx, cache, aux)
    return named(tap(aux, ctx, "sublayer", y), "sublayer"), cache


@runtime_checkable
class Layer(Protocol):
    """What a stack walks: a `Block`, or what wraps one (`LayerWrapper`)."""

    @property
    def parts(self) -> Named: ...

    @property
    def residual(self) -> Residual: ...

    def spec(self, d: int) -> Tree: ...

    def cache(self, d: int, shape: CacheShape) -> Tree: ...

    def __call__(self, p: Tree, carry: Carry, ctx: Ctx, cache: Tree, /) -> tuple[Carry, Tree, Tree]:
        """carry, cache -> carry, cache, aux: what the residual wiring carries, and statistics and records by part."""

    def update(self, p: Tree, aux: Tree) -> Tree: ...


class LayerWrapper:
    """A layer around a `block`, which does all that the wrapper does not do itself. Subclasses are components with a
    field `block`; parameters and cache are the block's, with the wrapper's own beside them."""

    block: Block

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

    def update(self, p: Tree, aux: Tree) -> Tree:
        return self.block.update(p, aux)


def reading(block: Layer, source: CrossKV) -> Block:
    """The layer with an attention to an encoder between its own, which it resembles but for mask and positions, and the
    MLP."""
    assert isinstance(block, Block)
    own, mlp = block.parts
    cross = dataclasses.replace(own[1], mask=Bidirectional(), rotary=None, bias=(), source=source)
    return dataclasses.replace(block, parts=(own, ("cross", cross), mlp))
