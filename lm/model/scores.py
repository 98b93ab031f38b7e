"""Terms added to attention scores. Each may own parameters per layer, and read values that its stack computes once.

Called as `term(p, q, k, q_tokens, k_tokens, ctx, scale) -> [B or 1, H, S, T]`; q [B, H, S, K] and k [B, H, T, K] are
not yet scaled, and the result is added to scale * q k^T.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot, take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.kernels.attention import Tokens
from lm.model.layers import ZEROS, Norm
from lm.model.positions import sinusoid

Array = jax.Array


def _ahead(q: Tokens, k: Tokens) -> Array:
    """Key position minus query position, int32 [B, S, T]."""
    return k.positions[:, None, :] - q.positions[:, :, None]


@component
class Table:
    """A table computed once per stack and shared by its layers: T5's biases [rows, heads], DeBERTa's relative
    embeddings [rows, d] with their norm."""

    rows: int
    width: int | None = None  # default: the model's
    norm: Norm | None = None
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        spec = {"w": Param((self.rows, width), ("position", None if self.width else "embed"), self.init)}
        return spec | {"norm": self.norm.spec(width)} if self.norm else spec

    def __call__(self, p: Tree, ctx: Ctx) -> Array:
        w = take(p["w"], jnp.arange(self.rows))
        return self.norm(p["norm"], w) if self.norm else w


def _table(ctx: Ctx, name: str, rows: int) -> Array:
    """The stack's table `name`. One with other rows than its reader expects would be read past its end."""
    if name not in ctx.shared:
        raise UserError(f"a score term reads the table {name!r}, which its stack lacks{nearest(name, ctx.shared)}")
    table = ctx.shared[name]
    if table.shape[0] != rows:
        raise UserError(f"table {name!r} has rows={table.shape[0]}, but a score term reads {rows}: make them equal")
    return table


@component
class BucketedBias:
    """A learned bias per head and bucketed distance, from the stack's table `name` (Raffel et al. 2020, 1910.10683).

    Half the buckets hold exact distances, the rest grow logarithmically up to `farthest`. With `bidirectional`, keys
    behind and ahead of the query have their own half."""

    name: str = "relative_bias"
    buckets: int = 32
    farthest: int = 128
    bidirectional: bool = False

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def bucket(self, ahead: Array) -> Array:
        """Bucket of each key-minus-query distance."""
        n, first = self.buckets, jnp.zeros((), jnp.int32)
        if self.bidirectional:
            n //= 2
            first = jnp.where(ahead > 0, n, 0)
            distance = jnp.abs(ahead)
        else:
            distance = jnp.maximum(-ahead, 0)
        exact = n // 2
        ratio = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(self.farthest / exact)
        far = jnp.minimum(exact + (ratio * (n - exact)).astype(jnp.int32), n - 1)
        return first + jnp.where(distance < exact, distance, far)

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        table = _table(ctx, self.name, self.buckets)
        bias = jnp.take(table, self.bucket(_ahead(q_tokens, k_tokens)), axis=0)  # [B, S, T, H]
        return jnp.moveaxis(bias, -1, 1)


@component
class Disentangled:
    """Content-to-position and position-to-content terms over shared relative embeddings R [2 span, d] (DeBERTa, He et
    al. 2021, arXiv 2006.03654): q_i . (R W_k)[i - j + span] + k_j . (R W_q)[i - j + span], distances clipped to the
    span (the published code's second index; the paper's equation 4 has j - i there)."""

    span: int
    name: str = "relative"
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        shape, axes = (d, heads * head_dim), ("embed", "heads")
        return {"key": {"w": Param(shape, axes, self.init)}, "query": {"w": Param(shape, axes, self.init)}}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        b, h, s, size = q.shape
        t = k.shape[2]
        relative = _table(ctx, self.name, 2 * self.span).astype(q.dtype)
        keys, queries = (dot(relative, p[n]["w"]).reshape(-1, h, size) for n in ("key", "query"))
        at = jnp.clip(self.span - _ahead(q_tokens, k_tokens), 0, 2 * self.span - 1)  # i - j + span
        at = jnp.broadcast_to(at[:, None], (b, h, s, t))
        c2p = jnp.take_along_axis(jnp.einsum("bhsk,rhk->bhsr", q, keys), at, axis=3)
        p2c = jnp.take_along_axis(jnp.einsum("bhtk,rhk->bhtr", k, queries), jnp.swapaxes(at, 2, 3), axis=3)
        return scale * (c2p + jnp.swapaxes(p2c, 2, 3))


@component
class TransformerXL:
    """Relative positions of Transformer-XL (Dai et al. 2019, arXiv 1901.02860): u . k_j + (q_i + v) . W_r R_{i-j}, with
    R the sinusoid (sines, then cosines) and u, v learned per layer and head."""

    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {
            "r": {"w": Param((d, heads * head_dim), ("embed", "heads"), self.init)},
            "u": Param((heads, head_dim), ("heads", None), ZEROS, "bias"),
            "v": Param((heads, head_dim), ("heads", None), ZEROS, "bias"),
        }

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        _, h, s, size = q.shape
        t, d = k.shape[2], p["r"]["w"].shape[-2]
        # Distances i - j run from -(s - 1) to t - 1 when positions are consecutive; others are clipped to that range.
        distances = jnp.arange(-(s - 1), t, dtype=jnp.float32)
        angles = distances[:, None] * sinusoid(d)
        r = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(q.dtype)
        r = dot(r, p["r"]["w"]).reshape(-1, h, size)
        u, v = (p[n].astype(q.dtype)[:, None, :] for n in ("u", "v"))
        by_distance = jnp.einsum("bhsk,rhk->bhsr", q + v, r)
        at = jnp.clip(s - 1 - _ahead(q_tokens, k_tokens), 0, s + t - 2)[:, None]
        at = jnp.broadcast_to(at, (*q.shape[:2], s, t))
        return scale * (jnp.take_along_axis(by_distance, at, axis=3) + jnp.einsum("xhsk,bhtk->bhst", u[None], k))


@component
class Alibi:
    """Attention with linear biases: minus slope times distance (Press et al. 2021, arXiv 2108.12409).

    The slopes of a power of two of heads are 2^(-8 i / heads). For another number they go on with every second slope of
    twice that power; MPT's order, the second, fourth ... slopes of the next power and then its first, third ..., is the
    same. `scaled`: the bias is multiplied by the scores' scale too. `rounded`: slopes and biases go through bfloat16,
    and biases count from the first token (both Falcon)."""

    scaled: bool = False
    rounded: bool = False

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def slopes(self, heads: int) -> np.ndarray:
        """float32 [heads]"""

        def of(n: int) -> list[float]:
            return [2 ** (-8 * i / n) for i in range(1, n + 1)]

        below = 1 << (heads.bit_length() - 1)
        found = of(below) + of(2 * below)[0::2]
        return np.array(found[:heads], np.float32)

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        slopes = jnp.asarray(self.slopes(q.shape[1]))[:, None, None]
        if self.rounded:
            half = slopes.astype(jnp.bfloat16) * k_tokens.positions[:, None, None, :].astype(jnp.bfloat16)
            bias = half.astype(jnp.float32)
        else:
            bias = slopes * _ahead(q_tokens, k_tokens)[:, None]
        return scale * bias if self.scaled else bias


ScoreTerm = BucketedBias | Disentangled | TransformerXL | Alibi
