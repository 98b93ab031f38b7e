"""Where attention's keys and values come from: the layer's own inputs, an encoder's output, a memory of earlier ones.

Shapes: B batch, S queries, T keys, D model width, H heads, K key/value heads, d width of a key, w of a value."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.core.rows import Tokens
from lm.model.cache import CacheShape, CrossCache, KVCache, KVShape, MemoryCache, known

Array = jax.Array
Project = Callable[[Array, Tokens], tuple[Array, Array]]  # inputs [B, T, D] -> k [B, K, T, d], v [B, K, T, w]


class KV(NamedTuple):
    """Keys and values, what they stand for, and the source's new cache."""

    k: Array  # [B, K, T, d]
    v: Array  # [B, K, T, w]
    tokens: Tokens  # [B, T]
    cache: Any = None
    aligned: bool = False  # key i is query i's own token, but for the extra ones (`AttentionSpec.aligned`)
    extra: int = 0  # the last so many keys are seen by all queries of their segment
    extra_bias: Callable[[Any, Tokens], Array] | None = None  # q [B, H, S, d] of these -> scores added [B, H, S, extra]

    def with_extra(
        self, k: Array, v: Array, tokens: Tokens, bias: Callable[[Array, Tokens], Array] | None = None
    ) -> "KV":
        """These and, behind them, extra keys, which have segments. Of the tokens as much as is known of the extra."""
        names = [f.name for f in dataclasses.fields(Tokens) if getattr(tokens, f.name) is not None]
        own = Tokens(**{name: getattr(self.tokens, name) for name in names})
        if own.segments is None:
            own = dataclasses.replace(own, segments=known(own)[1])
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), own, tokens)
        k, v = (jnp.concatenate(pair, axis=2) for pair in ((self.k, k), (self.v, v)))
        return KV(k, v, both, self.cache, self.aligned, tokens.positions.shape[1], bias)


@runtime_checkable
class KVSource(Protocol):
    """What `Attention` asks for keys and values.

    A source with parameters of its own adds them to those of its attention, under names of its own."""

    @property
    def width(self) -> int | None:
        """Of the inputs that keys and values are made of; None: the model's own."""

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        """Parameters, {} for most; of an attention with so many heads of that width in a model of width d."""

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> Any:
        """The state before the first call: a registered dataclass whose arrays have a leading batch axis."""

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: Any) -> KV:
        """p: the attention's parameters, the source's among them; `project`: its projection of inputs to keys and
        values; x [B, S, D]: its inputs; cache: None where there is nothing to keep."""


@component(was=("Own",))
class SelfKV:
    """Self-attention: keys and values of the layer's own inputs, and of those before them that are cached."""

    width: ClassVar[None] = None
    any_order: ClassVar[bool] = True

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> KVCache:
        return KVCache.empty(kv, shape)

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: KVCache | None) -> KV:
        tokens = Tokens.of(ctx.rows)
        k, v = project(x, tokens)
        if cache is None:
            return KV(k, v, tokens, aligned=True)
        cache = cache.append(k, v, tokens)
        # The first call writes the whole prefix, so it stands at the front of the cache; later queries follow it and
        # see it under the causal mask anyway.
        prefix = tokens.prefix
        if prefix is not None:
            prefix = jnp.pad(prefix, ((0, 0), (0, cache.segments.shape[1] - prefix.shape[1])))
        return KV(cache.k, cache.v, dataclasses.replace(cache.tokens, prefix=prefix), cache)


@component(was=("Cross",))
class CrossKV:
    """Cross-attention to `ctx.rows[name]`, an encoder's output. Its keys and values are computed by the first call,
    which has that output among its rows, and read from the cache by later ones, which have not."""

    any_order: ClassVar[bool] = True

    name: str = "encoder"
    width: int | None = None  # of that output; None: the model's own

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> CrossCache:
        return CrossCache.empty(kv, shape)

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: CrossCache | None) -> KV:
        if self.name not in ctx.rows:
            if cache is None:
                raise UserError(f"cross-attention reads the rows {self.name!r}{nearest(self.name, ctx.rows)}")
            return KV(cache.k, cache.v, cache.tokens, cache)
        tokens = Tokens.of(ctx.rows, f"{self.name}/")
        k, v = project(ctx.rows[self.name], tokens)
        return KV(k, v, tokens, None if cache is None else cache.filled(k, v, tokens))


@component(was=("Recurrence",))
class SegmentMemory:
    """Self-attention over the current segment and a memory of the inputs before it, without gradient into the memory
    (Transformer-XL, Dai et al. 2019, arXiv 1901.02860). Positions must run on from call to call.

    length: how many inputs are remembered;
    reuse: of a call's inputs only so many of the first: the next call repeats the rest (XLNet, arXiv 1906.08237)."""

    width: ClassVar[None] = None

    length: int
    reuse: int | None = None

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> MemoryCache:
        return MemoryCache.empty(d, self.length, shape)

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: MemoryCache | None) -> KV:
        tokens = Tokens.of(ctx.rows)
        if cache is None:
            return KV(*project(x, tokens), tokens, aligned=True)
        both = cache.followed_by(x, tokens)
        # Of a factorisation order all that is remembered comes first: it is given.
        order = None if tokens.order is None else jnp.pad(tokens.order, ((0, 0), (self.length, 0)))
        seen = Tokens(both.positions, both.segments, order=order)
        end = self.length + min(self.reuse or x.shape[1], x.shape[1])
        return KV(*project(both.x, seen), seen, both[end - self.length : end])
