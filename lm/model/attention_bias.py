"""Terms added to attention scores. Each may own parameters per layer, and read values that its stack computes once.

Called as `term(p, q, k, q_tokens, k_tokens, ctx, scale) -> [B or 1, H, S, T]`; q [B, H, S, K] and k [B, H, T, K] are
not yet scaled, and the result is added to scale * q k^T.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot, take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.rows import HIDDEN, Tokens, visible
from lm.model.layers import ZEROS, Norm, linear, linear_spec
from lm.model.masks import Bidirectional
from lm.model.positions import sinusoid

Array = jax.Array


def _ahead(q: Tokens, k: Tokens) -> Array:
    """Key position minus query position, int32 [B, S, T]."""
    return k.positions[:, None, :] - q.positions[:, :, None]


@component(was=("Table",))
class BiasTable:
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
    """A learned bias per head and bucketed distance, from the stack's table `name` (Raffel et al. 2020, 1910.10683) or,
    without a name, from one of the layer's own (UMT5: Chung et al. 2023, 2304.09151), which `init` fills.

    Half the buckets hold exact distances, the rest grow logarithmically up to `farthest`. With `bidirectional`, keys
    behind and ahead of the query have their own half."""

    pairwise: ClassVar[bool] = True  # tells of each pair by itself: may be asked about some of them

    name: str | None = "relative_bias"
    buckets: int = 32
    farthest: int = 128
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
        ratio = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(self.farthest / exact)
        far = jnp.minimum(exact + (ratio * (n - exact)).astype(jnp.int32), n - 1)
        return first + jnp.where(distance < exact, distance, far)

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        bucket = self.bucket(_ahead(q_tokens, k_tokens))
        bias = jnp.take(_table(ctx, self.name, self.buckets), bucket, axis=0) if self.name else take(p["w"], bucket)
        return jnp.moveaxis(bias, -1, 1)  # from [B, S, T, H]


@component
class Distances:
    """Which of the rows of the stack's table `name` [2 span, d] stands for a distance i - j of query and key: i - j +
    span, clipped at the ends.

    With `farthest` only distances below half the span have rows of their own; those up to `farthest` share the other
    half, in buckets that grow logarithmically (DeBERTa v2 and v3: He et al. 2021, arXiv 2111.09543)."""

    span: int
    farthest: int | None = None
    name: str = "relative"

    def __post_init__(self) -> None:
        if self.farthest is not None and not 2 <= self.span < 2 * self.farthest - 2:
            raise UserError(
                f"buckets for distances up to farthest={self.farthest} cannot have span={self.span}: "
                f"it must be at least 2 and less than {2 * self.farthest - 2}"
            )

    def buckets(self) -> np.ndarray:
        """int32 [n]: the bucket of each distance from 0 on; those from n on belong to the last."""
        if self.farthest is None:
            return np.arange(self.span + 1, dtype=np.int32)
        half = self.span // 2
        ratio = (self.farthest - 1) / half
        last = half * ratio ** ((self.span - half) / (half - 1)) if half > 1 else self.farthest
        far = np.arange(int(last) + 2, dtype=np.float32)
        grown = np.log(np.maximum(far, half) / np.float32(half)) / np.log(np.float32(ratio)) * (half - 1)
        return np.where(far <= half, far, np.ceil(grown) + half).astype(np.int32)

    def table(self, ctx: Ctx, dtype: jax.typing.DTypeLike) -> Array:
        """The relative embeddings [2 span, d]."""
        return _table(ctx, self.name, 2 * self.span).astype(dtype)

    def rows(self, q: Tokens, k: Tokens) -> Array:
        """Row of the table for each pair, int32 [B, S, T]."""
        behind, buckets = -_ahead(q, k), self.buckets()
        bucket = jnp.asarray(buckets)[jnp.minimum(jnp.abs(behind), len(buckets) - 1)]
        return jnp.clip(jnp.sign(behind) * bucket + self.span, 0, 2 * self.span - 1)


@component
class ContentToPosition:
    """q_i . (R W)[i - j]: what the query holds asks for a distance (DeBERTa, He et al. 2021, arXiv 2006.03654). R are
    the stack's relative embeddings. W may be tied to the attention's own projection of keys (DeBERTa v2)."""

    distances: Distances
    bias: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"key": linear_spec((d, heads * head_dim), ("embed", "heads"), self.bias, self.init)}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        keys = linear(p["key"], self.distances.table(ctx, q.dtype)).reshape(-1, *q.shape[1::2])  # [R, H, K]
        at = jnp.broadcast_to(self.distances.rows(q_tokens, k_tokens)[:, None], (*q.shape[:3], k.shape[2]))
        return scale * jnp.take_along_axis(jnp.einsum("bhsk,rhk->bhsr", q, keys), at, axis=3)


@component
class PositionToContent:
    """k_j . (R W)[i - j]: a distance asks for what the key holds (DeBERTa, as above; the published code's index, where
    the paper's equation 4 has j - i). W may be tied to the attention's own projection of queries."""

    distances: Distances
    bias: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"query": linear_spec((d, heads * head_dim), ("embed", "heads"), self.bias, self.init)}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        queries = linear(p["query"], self.distances.table(ctx, q.dtype)).reshape(-1, *q.shape[1::2])  # [R, H, K]
        at = jnp.swapaxes(self.distances.rows(q_tokens, k_tokens), 1, 2)[:, None]
        at = jnp.broadcast_to(at, (*k.shape[:3], q.shape[2]))
        found = jnp.take_along_axis(jnp.einsum("bhtk,rhk->bhtr", k, queries), at, axis=3)
        return scale * jnp.swapaxes(found, 2, 3)


@component(was=("TransformerXL",))
class RelativeBias:
    """Relative positions of Transformer-XL (Dai et al. 2019, arXiv 1901.02860): u . k_j + (q_i + v) . W_r R_{i-j}, with
    R the sinusoid (sines, then cosines) and u, v learned per layer and head or, where `biases` names a table of the
    stack [2, heads * head_dim], per head alone: its rows are u and v. Distances beyond `clamp` count as `clamp`."""

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
        pair = _table(ctx, self.biases, 2).reshape(2, h, size) if self.biases else (p["u"], p["v"])
        u, v = (x.astype(q.dtype)[:, None, :] for x in pair)
        by_distance = jnp.einsum("bhsk,rhk->bhsr", q + v, r)
        at = jnp.clip(s - 1 - _ahead(q_tokens, k_tokens), 0, s + t - 2)[:, None]
        at = jnp.broadcast_to(at, (*q.shape[:2], s, t))
        return scale * (jnp.take_along_axis(by_distance, at, axis=3) + jnp.einsum("xhsk,bhtk->bhst", u[None], k))


@component
class SameType:
    """Whether query and key are of one type, told by the row `types` (XLNet's relative segments, Yang et al. 2019,
    arXiv 1906.08237): (q_i + b) . e, where e is one vector per head for pairs of one type, another for the rest.
    Nothing is added where a batch has no such row. What a memory holds from before the batch is of type 0."""

    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {
            "e": Param((2, heads, head_dim), (None, "heads", None), self.init),
            "b": Param((heads, head_dim), ("heads", None), ZEROS, "bias"),
        }

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        if "types" not in ctx.rows:
            return jnp.zeros((1, 1, 1, 1))
        own = ctx.rows["types"]
        of_keys = jnp.pad(own, ((0, 0), (k.shape[2] - q.shape[2], 0)))
        other = (own[:, :, None] != of_keys[:, None, :])[:, None]  # [B, 1, S, T]
        asked = q + p["b"].astype(q.dtype)[:, None, :]
        same, differ = jnp.einsum("bhsk,nhk->nbhs", asked, p["e"].astype(q.dtype))[..., None]
        return scale * jnp.where(other, differ, same)


@component
class Alibi:
    """Attention with linear biases: minus slope times distance (Press et al. 2021, arXiv 2108.12409).

    The slopes of a power of two of heads are 2^(-8 i / heads). For another number they go on with every second slope of
    twice that power; MPT's order, the second, fourth ... slopes of the next power and then its first, third ..., is the
    same. `scaled`: the bias is multiplied by the scores' scale too. `rounded`: slopes and biases go through bfloat16,
    and biases count from the first token (both Falcon)."""

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
            bias = slopes * _ahead(q_tokens, k_tokens)[:, None]
        return scale * bias if self.scaled else bias


@component
class BlockSparse:
    """Hides keys by blocks of `size` positions (Phi-3-small, Abdin et al. 2024, arXiv 2404.14219): a query sees the
    last `local` blocks, its own among them, and of those before every `stride`-th; each head begins to count elsewhere.
    What is ahead is up to the mask."""

    pairwise: ClassVar[bool] = True

    size: int
    local: int
    stride: int

    def __post_init__(self) -> None:
        if min(self.size, self.local, self.stride) < 1:
            raise UserError(f"BlockSparse({self.size}, {self.local}, {self.stride}): all numbers must be at least 1")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        heads = q.shape[1]
        first = 1 + np.arange(heads)[:, None, None] * max(1, self.stride // heads)  # [H, 1, 1]
        own, other = (t.positions // self.size for t in (q_tokens, k_tokens))
        near = (own[:, :, None] - other[:, None, :] < self.local)[:, None]
        chosen = ((other[:, None, None, :] + first) % self.stride) == 0
        return jnp.where(near | chosen, 0.0, HIDDEN)


@component
class EdgeBlocks:
    """Hides keys by blocks of `size` positions (BigBird, Zaheer et al. 2020, arXiv 2007.14062): a query sees its own
    block, those beside it, and the first and the last of its text, whose queries see all of it. `random` blocks more,
    which the paper draws, are all the first, which counts so many times more: so does the published code's evaluation.
    In rows of up to `whole` tokens nothing is hidden."""

    size: int
    random: int
    whole: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.random < 0:
            raise UserError(f"EdgeBlocks({self.size}, {self.random}): size must be at least 1, random at least 0")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        if k.shape[2] <= self.whole:
            return jnp.zeros((1, 1, 1, 1))
        own, other = (q_tokens.positions[:, :, None] // self.size, k_tokens.positions[:, None, :] // self.size)
        last = jnp.max(jnp.where(visible(Bidirectional(), q_tokens, k_tokens), other, 0), axis=2, keepdims=True)
        edge = (own == 0) | (own == last)
        seen = edge | (jnp.abs(own - other) <= 1) | (other == 0) | (other == last)
        again = jnp.where((other == 0) & ~edge, math.log(1 + self.random), 0.0)
        return jnp.where(seen, again, HIDDEN)[:, None]


AttentionBias = (
    BucketedBias | ContentToPosition | PositionToContent | RelativeBias | SameType | Alibi | BlockSparse | EdgeBlocks
)
