"""Where attention's keys and values come from, and the state (cache) that this needs from one call to the next.

A source is called as `source(project, x, ctx, cache) -> (k, v, key tokens, cache)`, where `project(inputs, tokens)` is
the attention's own key and value projection: inputs [B, T, d] -> k [B, G, T, K], v [B, G, T, V].
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.core.rows import Tokens

Array = jax.Array
Project = Callable[[Array, Tokens], tuple[Array, Array]]
Found = tuple[Array, Array, Tokens, Tree]
KeysValues = tuple[int, int, int]  # heads, size of a key, size of a value


@dataclasses.dataclass(frozen=True)
class CacheShape:
    """How much state a generation needs: rows, tokens to keep per row, length of the encoder memory, and dtype."""

    batch: int
    length: int
    memory: int = 0
    dtype: Any = jnp.float32

    def tokens(self, length: int) -> Tree:
        """Positions and segments of `length` empty places (segment 0: nobody sees them)."""
        none = jnp.zeros((self.batch, length), jnp.int32)
        return {"positions": none, "segments": none}

    def keys_values(self, kv: KeysValues, length: int) -> Tree:
        """Keys [batch, heads, length, key size] and values [batch, heads, length, value size], all zero."""
        heads, *sizes = kv
        return {n: jnp.zeros((self.batch, heads, length, s), self.dtype) for n, s in zip("kv", sizes, strict=True)}


def row_tokens(ctx: Ctx, prefix: str = "") -> Tokens:
    """The tokens that the layer's input rows stand for (`prefix` "" ) or those of a memory ("encoder/")."""
    return Tokens.of(ctx.rows, prefix)


def _known(tokens: Tokens) -> Tree:
    """Positions and segments to remember; tokens without segments belong to segment 1."""
    segments = jnp.ones_like(tokens.positions) if tokens.segments is None else tokens.segments
    return {"positions": tokens.positions, "segments": segments}


@component(was=("Own",))
class SelfKV:
    """Self-attention. The cache is the KV cache: everything written so far, new tokens behind it."""

    aligned: ClassVar[bool] = True  # without a cache, the i-th key is the i-th query's token
    width: ClassVar[None] = None  # of what keys and values are made of; None: the model's own

    def cache(self, d: int, kv: KeysValues, shape: CacheShape) -> Tree:
        return {
            **shape.keys_values(kv, shape.length),
            "written": jnp.zeros((), jnp.int32),
            **shape.tokens(shape.length),
        }

    def __call__(self, project: Project, x: Array, ctx: Ctx, cache: Tree) -> Found:
        tokens = row_tokens(ctx)
        k, v = project(x, tokens)
        if cache is None:
            return k, v, tokens, None
        at = cache["written"]
        values = {"k": (k, 2), "v": (v, 2)} | {name: (t, 1) for name, t in _known(tokens).items()}
        new = {
            name: jax.lax.dynamic_update_slice_in_dim(cache[name], value.astype(cache[name].dtype), at, axis)
            for name, (value, axis) in values.items()
        }
        seen = Tokens(new["positions"], new["segments"], _prefix_so_far(tokens, new["positions"].shape))
        return new["k"], new["v"], seen, {**new, "written": at + x.shape[1]}


def rewound(cache: Tree) -> Tree:
    """The caches of `SelfKV`, to be written from the front again; what other sources keep is kept."""

    def one(path: tuple, x: Array) -> Array:
        return jnp.zeros_like(x) if path[-1] == jax.tree_util.DictKey("written") else x

    return jax.tree_util.tree_map_with_path(one, cache)


def for_rows(rows: Array, new: Tree, old: Tree) -> Tree:
    """Slots of `new` for the rows [B] that say so, of `old` for the others, which have written as much."""

    def one(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (b.ndim - 1)), a, b) if b.ndim else b

    return jax.tree.map(one, new, old)


def _prefix_so_far(tokens: Tokens, shape: tuple[int, ...]) -> Array | None:
    """Prefix flags over a whole cache: a prefix is written by the first call, hence stands at the front. Later queries
    come behind it and see it anyway."""
    if tokens.prefix is None:
        return None
    return jnp.pad(tokens.prefix, ((0, 0), (0, shape[1] - tokens.prefix.shape[1])))


@component(was=("Cross",))
class CrossKV:
    """Cross-attention to `ctx.rows[name]`, an encoder's output. The cache keeps its keys and values: they are computed
    by the first call, which has that memory among its rows, and read by later ones, which have not."""

    aligned: ClassVar[bool] = False

    name: str = "encoder"
    width: int | None = None  # of that output; None: the model's own

    def cache(self, d: int, kv: KeysValues, shape: CacheShape) -> Tree:
        return {**shape.keys_values(kv, shape.memory), **shape.tokens(shape.memory)}

    def __call__(self, project: Project, x: Array, ctx: Ctx, cache: Tree) -> Found:
        if self.name not in ctx.rows:
            if cache is None:
                raise UserError(f"cross-attention reads the rows {self.name!r}{nearest(self.name, ctx.rows)}")
            return cache["k"], cache["v"], Tokens(cache["positions"], cache["segments"]), cache
        tokens = row_tokens(ctx, f"{self.name}/")
        k, v = project(ctx.rows[self.name], tokens)
        if cache is None:
            return k, v, tokens, None
        return k, v, tokens, {"k": k.astype(cache["k"].dtype), "v": v.astype(cache["v"].dtype), **_known(tokens)}


@component(was=("Recurrence",))
class SegmentMemory:
    """Self-attention over the current segment and a memory of the `length` inputs before it, without gradient into the
    memory (Transformer-XL, Dai et al. 2019, arXiv 1901.02860). Positions must run on from call to call. With `reuse`
    only that many of a call's first inputs are remembered: the next call repeats the rest (XLNet, 1906.08237)."""

    aligned: ClassVar[bool] = True
    width: ClassVar[None] = None

    length: int
    reuse: int | None = None

    def cache(self, d: int, kv: KeysValues, shape: CacheShape) -> Tree:
        return {"x": jnp.zeros((shape.batch, self.length, d), shape.dtype), **shape.tokens(self.length)}

    def __call__(self, project: Project, x: Array, ctx: Ctx, cache: Tree) -> Found:
        tokens = row_tokens(ctx)
        if cache is None:
            return *project(x, tokens), tokens, None
        both = {"x": jnp.concatenate([jax.lax.stop_gradient(cache["x"]).astype(x.dtype), x], axis=1)}
        both |= {n: jnp.concatenate([cache[n], t], axis=1) for n, t in _known(tokens).items()}
        seen = Tokens(both["positions"], both["segments"], order=_order_so_far(tokens, self.length))
        end = self.length + min(self.reuse or x.shape[1], x.shape[1])
        return *project(both["x"], seen), seen, {n: t[:, end - self.length : end] for n, t in both.items()}


def _order_so_far(tokens: Tokens, length: int) -> Array | None:
    """Places in the factorisation order behind a memory of that length, all of which is given."""
    return None if tokens.order is None else jnp.pad(tokens.order, ((0, 0), (length, 0)))


KVSource = SelfKV | CrossKV | SegmentMemory
