"""What is added to attention scores: biases by distance, and by content and distance.

Shapes: B batch, S queries, T keys, D model width, H heads, d width of a head."""

import math
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component, renamed
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot, take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.rows import Tokens
from lm.model.layers import ZEROS, Norm
from lm.model.positions import sinusoid

Array = jax.Array


@runtime_checkable
class AttentionBias(Protocol):
    """What is added to scaled scores. May own parameters per layer, and read what its stack computes once
    (`ctx.shared`: see `BiasTable`). To hide a pair add `lm.core.rows.HIDDEN`."""

    @property
    def pairwise(self) -> bool:
        """Whether it is known of each pair of query and key by their two tokens: then kernels may ask for some queries
        and keys only, and it is given shapes in the place of q and k."""

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        """Parameters, of an attention with so many heads of that width in a model of width d."""

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        """q [B, H, S, d] and k [B, H, T, d], one for each head of queries -> [B or 1, H or 1, S, T]. The result is
        added to scale * q k^T; q and k come unscaled."""


def ahead(q: Tokens, k: Tokens) -> Array:
    """Key position minus query position, int32 [B, S, T]."""
    return k.positions[:, None, :] - q.positions[:, :, None]


@component(was=("Table",))
class BiasTable:
    """A table computed once per stack and shared by its layers: T5's biases [rows, heads], DeBERTa's relative
    embeddings [rows, D] with their norm."""

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


def table_of(ctx: Ctx, name: str, rows: int) -> Array:
    """The stack's table `name`. One with other rows than its reader expects would be read past its end."""
    if name not in ctx.shared:
        raise UserError(f"an attention bias reads the table {name!r}, which its stack lacks{nearest(name, ctx.shared)}")
    table = ctx.shared[name]
    if table.shape[0] != rows:
        raise UserError(
            f"table {name!r} has rows={table.shape[0]}, but an attention bias reads {rows}: make them equal"
        )
    return table


@component(upgrade=renamed(farthest="max_distance"))
class BucketedBias:
    """A learned bias per head and bucketed distance (T5: Raffel et al. 2020, arXiv 1910.10683). Half the buckets hold
    exact distances, the rest grow logarithmically.

    name: of the stack's table [buckets, H]; None: the layer has one of its own (UMT5: Chung et al. 2023, 2304.09151);
    buckets: how many;
    max_distance: from here on all distances share the last bucket;
    bidirectional: keys behind and ahead of the query have a half each; otherwise those ahead count as at no distance;
    init: fills a table of the layer's own."""

    pairwise: ClassVar[bool] = True

    name: str | None = "relative_bias"
    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {} if self.name else {"w": Param((self.buckets, heads), ("position", "heads"), self.init)}

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
        ratio = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(self.max_distance / exact)
        far = jnp.minimum(exact + (ratio * (n - exact)).astype(jnp.int32), n - 1)
        return first + jnp.where(distance < exact, distance, far)

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        bucket = self.bucket(ahead(q_tokens, k_tokens))
        bias = jnp.take(table_of(ctx, self.name, self.buckets), bucket, axis=0) if self.name else take(p["w"], bucket)
        return jnp.moveaxis(bias, -1, 1)  # from [B, S, T, H]


@component(was=("TransformerXL",))
class RelativeBias:
    """Relative positions of Transformer-XL (Dai et al. 2019, arXiv 1901.02860): u . k_j + (q_i + v) . W_r R_{i-j}, with
    R the sinusoid (sines, then cosines) and u, v learned per layer and head or, where `biases` names a table of the
    stack [2, heads * head_dim], per head alone: its rows are u and v. Distances beyond `clamp` count as `clamp`."""

    pairwise: ClassVar[bool] = False

    biases: str | None = None
    clamp: int | None = None
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        spec: Tree = {"r": {"w": Param((d, heads * head_dim), ("embed", "heads"), self.init)}}
        if self.biases:
            return spec
        return spec | {n: Param((heads, head_dim), ("heads", None), ZEROS, "bias") for n in ("u", "v")}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        _, h, s, size = q.shape
        t, d = k.shape[2], p["r"]["w"].shape[-2]
        # Distances i - j run from -(s - 1) to t - 1 when positions are consecutive; others are clipped to that range.
        distances = jnp.arange(-(s - 1), t, dtype=jnp.float32)
        distances = jnp.clip(distances, -self.clamp, self.clamp) if self.clamp else distances
        angles = distances[:, None] * sinusoid(d)
        r = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(q.dtype)
        r = dot(r, p["r"]["w"]).reshape(-1, h, size)
        pair = table_of(ctx, self.biases, 2).reshape(2, h, size) if self.biases else (p["u"], p["v"])
        u, v = (x.astype(q.dtype)[:, None, :] for x in pair)
        by_distance = jnp.einsum("bhsk,rhk->bhsr", q + v, r)
        at = jnp.clip(s - 1 - ahead(q_tokens, k_tokens), 0, s + t - 2)[:, None]
        at = jnp.broadcast_to(at, (*q.shape[:2], s, t))
        return scale * (jnp.take_along_axis(by_distance, at, axis=3) + jnp.einsum("xhsk,bhtk->bhst", u[None], k))


@component
class Alibi:
    """Attention with linear biases: minus slope times distance (Press et al. 2021, arXiv 2108.12409).

    The slopes of a power of two of heads are 2^(-8 i / heads). For another number they go on with every second slope of
    twice that power; MPT's order, the second, fourth ... slopes of the next power and then its first, third ..., is the
    same.

    scaled: the bias is multiplied by the scores' scale too (Falcon);
    rounded: slopes and biases go through bfloat16, and biases count from the first token (Falcon)."""

    pairwise: ClassVar[bool] = True

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
            bias = slopes * ahead(q_tokens, k_tokens)[:, None]
        return scale * bias if self.scaled else bias
