"""What a model keeps from one call to the next: registered dataclasses whose arrays all have a leading batch axis, so
that rows may be of different lengths, be replaced, and be emptied one by one.

`KVCache.append` is all that attention needs of a cache of keys and values: one that keeps them in pages, or quantised,
has the same methods. Shapes: B batch, T tokens there is room for, K key/value heads, d width of a key, w of a value."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.param import Tree
from lm.core.rows import Tokens

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class CacheShape:
    """How much state a generation needs: rows, tokens to keep per row, length of what an encoder read, and dtype."""

    batch: int
    length: int
    memory: int = 0
    dtype: Any = jnp.float32


class KVShape(NamedTuple):
    """The keys and values of one attention: number of heads, width of a key and of a value."""

    heads: int
    key: int
    value: int


def known(tokens: Tokens) -> tuple[Array, Array]:
    """Positions and segments [B, S] to remember; tokens without segments belong to segment 1."""
    segments = jnp.ones_like(tokens.positions) if tokens.segments is None else tokens.segments
    return tokens.positions, segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Everything that was written so far; new tokens follow, in each row after its own last one.

    ragged: rows may be of different lengths. Known while tracing: where all rows are as long, which they are from an
    empty cache on, they are written at one place, which takes a CPU half the time."""

    k: Array  # [B, K, T, d]
    v: Array  # [B, K, T, w]
    positions: Array  # int32 [B, T]
    segments: Array  # int32 [B, T]; 0 where nothing is written: nobody sees it
    lengths: Array  # int32 [B]: how many tokens are written, padding among them
    ragged: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def empty(cls, kv: KVShape, shape: CacheShape) -> "KVCache":
        nothing = jnp.zeros((shape.batch, shape.length), jnp.int32)
        return cls(*_zeros(kv, shape, shape.length), nothing, nothing, jnp.zeros(shape.batch, jnp.int32))

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.positions, self.segments)

    def append(self, k: Array, v: Array, tokens: Tokens) -> "KVCache":
        """With keys k [B, K, S, d] and values v [B, K, S, w] of these tokens [B, S] behind each row's last one."""
        positions, segments = known(tokens)
        at = self.lengths if self.ragged else self.lengths[0]
        return KVCache(
            _write(self.k, k, at, 2),
            _write(self.v, v, at, 2),
            _write(self.positions, positions, at, 1),
            _write(self.segments, segments, at, 1),
            self.lengths + k.shape[2],
            self.ragged,
        )

    def rewind(self, lengths: Array | int) -> "KVCache":
        """With only the first `lengths` tokens: [B] for each row, or one number for all."""
        ragged = not isinstance(lengths, int)
        lengths = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), self.lengths.shape)
        kept = jnp.arange(self.segments.shape[1]) < lengths[:, None]
        segments = jnp.where(kept, self.segments, 0)
        return dataclasses.replace(self, segments=segments, lengths=lengths, ragged=ragged)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossCache:
    """Keys and values of what an encoder read: written whole by the first call, read by all later ones."""

    k: Array  # [B, K, T, d]
    v: Array  # [B, K, T, w]
    positions: Array  # int32 [B, T]
    segments: Array  # int32 [B, T]

    @classmethod
    def empty(cls, kv: KVShape, shape: CacheShape) -> "CrossCache":
        nothing = jnp.zeros((shape.batch, shape.memory), jnp.int32)
        return cls(*_zeros(kv, shape, shape.memory), nothing, nothing)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.positions, self.segments)

    def filled(self, k: Array, v: Array, tokens: Tokens) -> "CrossCache":
        return CrossCache(k.astype(self.k.dtype), v.astype(self.v.dtype), *known(tokens))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemoryCache:
    """The inputs of a layer that came last, of one number for ever. Checkpoints of runs that remember from batch to
    batch hold it by these names."""

    x: Array  # [B, T, D]
    positions: Array  # int32 [B, T]
    segments: Array  # int32 [B, T]; 0 where nothing was read yet

    @classmethod
    def empty(cls, d: int, length: int, shape: CacheShape) -> "MemoryCache":
        nothing = jnp.zeros((shape.batch, length), jnp.int32)
        return cls(jnp.zeros((shape.batch, length, d), shape.dtype), nothing, nothing)

    def followed_by(self, x: Array, tokens: Tokens) -> "MemoryCache":
        """This and, behind it, the inputs x [B, S, D] of these tokens: [B, T + S, ...], without gradient into this."""
        before = jax.lax.stop_gradient(self.x).astype(x.dtype)
        parts = ((before, x), *zip((self.positions, self.segments), known(tokens), strict=True))
        return MemoryCache(*(jnp.concatenate(pair, axis=1) for pair in parts))

    def __getitem__(self, kept: slice) -> "MemoryCache":
        return jax.tree.map(lambda x: x[:, kept], self)


def rewind(cache: Tree, lengths: Array | int) -> Tree:
    """The cache of a model with only the first `lengths` tokens, [B] or one number; what is no `KVCache` is kept."""
    return jax.tree.map(lambda x: x.rewind(lengths) if _is_kv(x) else x, cache, is_leaf=_is_kv)


def for_rows(rows: Array, new: Tree, old: Tree) -> Tree:
    """The cache of `new` for the rows bool [B] that say so, of `old` for the others. All keep the length that they have
    in `old`: what `new` has behind it is padding."""

    def one(new: Any, old: Any) -> Any:
        if _is_kv(new):
            new = dataclasses.replace(new.rewind(old.lengths), ragged=old.ragged)
        return jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *(1,) * (b.ndim - 1)), a, b), new, old)

    return jax.tree.map(one, new, old, is_leaf=_is_kv)


def _is_kv(x: Any) -> bool:
    return isinstance(x, KVCache)


def _zeros(kv: KVShape, shape: CacheShape, length: int) -> tuple[Array, Array]:
    k, v = (jnp.zeros((shape.batch, kv.heads, length, width), shape.dtype) for width in (kv.key, kv.value))
    return k, v


def _write(cache: Array, new: Array, at: Array, axis: int) -> Array:
    """cache [B, ..., T, ...] with new [B, ..., S, ...] from `at` on along `axis`: one place, or [B], each row's own."""
    new = new.astype(cache.dtype)
    if at.ndim == 0:
        return jax.lax.dynamic_update_slice_in_dim(cache, new, at, axis)
    return jax.vmap(lambda c, x, at: jax.lax.dynamic_update_slice_in_dim(c, x, at, axis - 1))(cache, new, at)
