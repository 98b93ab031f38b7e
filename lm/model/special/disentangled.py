"""Disentangled attention (DeBERTa): content asks for distances, and distances for content.

Shapes: B batch, S queries, T keys, D model width, H heads, d width of a head, R rows of the table of distances."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component, renamed
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Initializer, Normal, Tree
from lm.core.rows import Tokens
from lm.model.attention_bias import ahead, table_of
from lm.model.layers import linear, linear_spec

Array = jax.Array


@component(upgrade=renamed(farthest="max_distance"))
class Distances:
    """Which of the rows of the stack's table `name` [2 span, D] stands for a distance i - j of query and key: i - j +
    span, clipped at the ends.

    With `max_distance` only distances below half the span have rows of their own; those up to `max_distance` share the
    other half, in buckets that grow logarithmically (DeBERTa v2 and v3: He et al. 2021, arXiv 2111.09543)."""

    span: int
    max_distance: int | None = None
    name: str = "relative"

    def __post_init__(self) -> None:
        if self.max_distance is not None and not 2 <= self.span < 2 * self.max_distance - 2:
            raise UserError(
                f"buckets for distances up to max_distance={self.max_distance} cannot have span={self.span}: "
                f"it must be at least 2 and less than {2 * self.max_distance - 2}"
            )

    def buckets(self) -> np.ndarray:
        """int32 [n]: the bucket of each distance from 0 on; those from n on belong to the last."""
        if self.max_distance is None:
            return np.arange(self.span + 1, dtype=np.int32)
        half = self.span // 2
        ratio = (self.max_distance - 1) / half
        last = half * ratio ** ((self.span - half) / (half - 1)) if half > 1 else self.max_distance
        far = np.arange(int(last) + 2, dtype=np.float32)
        grown = np.log(np.maximum(far, half) / np.float32(half)) / np.log(np.float32(ratio)) * (half - 1)
        return np.where(far <= half, far, np.ceil(grown) + half).astype(np.int32)

    def table(self, ctx: Ctx, dtype: jax.typing.DTypeLike) -> Array:
        """The relative embeddings [2 span, D]."""
        return table_of(ctx, self.name, 2 * self.span).astype(dtype)

    def rows(self, q: Tokens, k: Tokens) -> Array:
        """Row of the table for each pair, int32 [B, S, T]."""
        behind, buckets = -ahead(q, k), self.buckets()
        bucket = jnp.asarray(buckets)[jnp.minimum(jnp.abs(behind), len(buckets) - 1)]
        return jnp.clip(jnp.sign(behind) * bucket + self.span, 0, 2 * self.span - 1)


@component
class ContentToPosition:
    """q_i . (R W)[i - j]: what the query holds asks for a distance (DeBERTa, He et al. 2021, arXiv 2006.03654). R are
    the stack's relative embeddings. W may be tied to the attention's own projection of keys (DeBERTa v2)."""

    pairwise: ClassVar[bool] = False

    distances: Distances
    bias: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"key": linear_spec((d, heads * head_dim), ("embed", "heads"), self.bias, self.init)}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        keys = linear(p["key"], self.distances.table(ctx, q.dtype)).reshape(-1, *q.shape[1::2])  # [R, H, d]
        at = jnp.broadcast_to(self.distances.rows(q_tokens, k_tokens)[:, None], (*q.shape[:3], k.shape[2]))
        return scale * jnp.take_along_axis(jnp.einsum("bhsk,rhk->bhsr", q, keys), at, axis=3)


@component
class PositionToContent:
    """k_j . (R W)[i - j]: a distance asks for what the key holds (DeBERTa, as above; the published code's index, where
    the paper's equation 4 has j - i). W may be tied to the attention's own projection of queries."""

    pairwise: ClassVar[bool] = False

    distances: Distances
    bias: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"query": linear_spec((d, heads * head_dim), ("embed", "heads"), self.bias, self.init)}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        queries = linear(p["query"], self.distances.table(ctx, q.dtype)).reshape(-1, *q.shape[1::2])  # [R, H, d]
        at = jnp.swapaxes(self.distances.rows(q_tokens, k_tokens), 1, 2)[:, None]
        at = jnp.broadcast_to(at, (*k.shape[:3], q.shape[2]))
        found = jnp.take_along_axis(jnp.einsum("bhtk,rhk->bhtr", k, queries), at, axis=3)
        return scale * jnp.swapaxes(found, 2, 3)
