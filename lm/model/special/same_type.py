"""A bias of whether two tokens are of one type.

Shapes: B batch, S queries, T keys, H heads, d width of a head."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.rows import Tokens
from lm.model.layers import ZEROS

Array = jax.Array


@component
class SameType:
    """Whether query and key are of one type, given by the row `types` (XLNet's relative segments, Yang et al. 2019,
    arXiv 1906.08237): (q_i + b) . e, where e is one vector per head for pairs of one type, another for the rest.
    Nothing is added where a batch has no such row. What a memory holds from before the batch is of type 0."""

    pairwise: ClassVar[bool] = False

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
