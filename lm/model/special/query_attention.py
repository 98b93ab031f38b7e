"""Attention that asks by position alone."""

from typing import Any

import jax

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.param import Tree
from lm.core.rows import Tokens
from lm.model.attention import Attention
from lm.model.cache import CacheShape
from lm.model.positions import Learned

Array = jax.Array


@component
class QueryAttention:
    """`attention` whose queries are made of a table of positions, its keys and values of x [B, S, D] (PanGu-alpha's
    query layer, Zeng et al. 2021, arXiv 2104.12369)."""

    attention: Attention
    query: Learned

    def spec(self, d: int) -> Tree:
        """That of `attention`, with the table `query` beside it."""
        return self.attention.spec(d) | {"query": self.query.spec(d)}

    def cache(self, d: int, shape: CacheShape) -> Any:
        return self.attention.cache(d, shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        asked = self.query(p["query"], Tokens.of(ctx.rows).text_positions, x.shape[-1], x.dtype)
        y, cache = self.attention.read(p, asked, x, ctx, cache, aux)
        return self.attention.out(p, y, ctx), cache
