"""Attention with a norm of what its heads give."""

from typing import Any

import jax

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.param import Tree
from lm.model.attention import Attention
from lm.model.cache import CacheShape
from lm.model.layers import Norm

Array = jax.Array


@component
class SubNormAttention:
    """`attention` with a `norm` before its output projection (sub-LN: Magneto, Wang et al. 2022, arXiv 2210.06423)."""

    attention: Attention
    norm: Norm

    def spec(self, d: int) -> Tree:
        """That of `attention`, with `inner_norm` beside it."""
        width = self.attention.heads * self.attention.head_dim
        return self.attention.spec(d) | {"inner_norm": self.norm.spec(width)}

    def cache(self, d: int, shape: CacheShape) -> Any:
        return self.attention.cache(d, shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        y, cache = self.attention.read(p, x, x, ctx, cache, aux)
        return self.attention.out(p, self.norm(p["inner_norm"], y), ctx), cache
