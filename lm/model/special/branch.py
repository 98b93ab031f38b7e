"""Layers with a branch beside them.

Shapes: B batch, S tokens of a row, D model width.
"""

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.block import Block, LayerWrapper, SubLayer, cache_of, update_parts
from lm.model.cache import CacheShape
from lm.model.layers import Norm
from lm.model.residual import Carry, ResiDual


@component(was=("ParallelConvolution",))
class Branched(LayerWrapper):
    """A layer with a branch beside it that reads the same input: norm(block(x) + branch(before(x))), x [B, S, D], for
    blocks that carry one stream. In DeBERTa v2 it is a convolution beside the first layer, with a `norm` (He et al.
    2021, arXiv 2006.03654); in Arctic the experts beside attention and a dense MLP, with a norm `before` them, so that
    their exchange between devices overlaps with both (Snowflake 2024; cf. Rajbhandari et al. 2022, 2201.05596)."""

    block: Block
    branch: SubLayer
    norm: Norm | None = None
    before: Norm | None = None

    def __post_init__(self) -> None:
        if isinstance(self.residual, ResiDual):
            raise UserError("a branch joins one stream, but ResiDual carries two: choose another residual wiring")

    def spec(self, d: int) -> Tree:
        """The block's own, and the branch's beside it."""
        norms = {"branch_norm": self.norm, "before_branch": self.before}
        branch = {"branch": self.branch.spec(d)} | {name: norm.spec(d) for name, norm in norms.items() if norm}
        return self.block.spec(d) | branch

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return self.block.cache(d, shape) | {"branch": self.branch.cache(d, shape)}

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        y, new, aux = self.block(p, x, ctx, cache)
        aux["branch"], own = {}, cache_of(cache, "branch")
        read = self.before(p["before_branch"], x) if self.before else x
        beside, own = self.branch(p["branch"], read, ctx.at("branch"), own, aux["branch"])
        y = self.norm(p["branch_norm"], y + beside) if self.norm else y + beside
        return y, None if new is None else new | {"branch": own}, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return update_parts((("branch", self.branch),), self.block.update(p, aux), aux)
