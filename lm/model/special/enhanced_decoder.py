"""A layer that asks several times about one input."""

import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.model.block import Block, LayerWrapper
from lm.model.residual import Carry


@component(was=("Requeried",))
class EnhancedDecoderLayer(LayerWrapper):
    """A layer that asks `times` times about its input x: first by x plus absolute positions, then by what it found.
    Keys and values are x's each time (the enhanced mask decoder, which DeBERTa has for its last layer in pretraining:
    He et al. 2021, arXiv 2006.03654, section 3.2, and the published code).

    The block's attention reads the rows `context`, as `CrossKV("context")` does; `table` names the stack's table."""

    block: Block
    times: int = 2
    table: str = "absolute"
    context: str = "context"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise UserError(f"times={self.times} a layer is asked must be at least 1")

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        if self.table not in ctx.shared:
            raise UserError(
                f"a layer reads the table {self.table!r}, which its stack lacks{nearest(self.table, ctx.shared)}"
            )
        positions, rows = ctx.shared[self.table], ctx.rows
        seen = {f"{self.context}/{name}": rows[name] for name in ("positions", "segments") if name in rows}
        inner = ctx.replace(rows=rows | seen | {self.context: x})
        queries = x + jnp.take(positions, rows["positions"], axis=0, mode="clip").astype(x.dtype)
        for i in range(self.times):
            queries, new, aux = self.block(p, queries, inner.at(str(i)), cache)
        return queries, new, aux
