"""Convolutions over a text's tokens."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.block import Block, LayerWrapper, SubLayer, cache_of, update_parts
from lm.model.cache import CacheShape
from lm.model.layers import ZEROS, Norm, activation
from lm.model.residual import Carry, ResiDual

Array = jax.Array


@component
class Convolution:
    """act(b + sum over t of x[i + t - width // 2] W_t), x [B, S, D] -> [B, S, D]: each token and `width // 2` on either
    side. With `groups` each share of the outputs reads its share of the inputs only (depthwise: as many groups as d).

    What lies outside of a token's segment counts as zeros, so that texts packed into one row do not meet. Both sides
    are read: this is for encoders, and keeps no state."""

    width: int
    groups: int = 1
    activation: str = "tanh"
    dropout: float = 0.0
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % 2 == 0:
            raise UserError(f"a convolution of width={self.width} has no middle: give an odd width")

    def spec(self, d: int) -> Tree:
        if self.groups < 1 or d % self.groups:
            raise UserError(f"groups={self.groups} of a convolution do not divide the width {d} of the model")
        # rows: the group's inputs, for each of them the `width` tokens
        share = d // self.groups
        w = Param((self.groups, share * self.width, share), (None, "embed", None), self.init)
        return {"w": w, "b": Param((d,), ("embed",), ZEROS, "bias")}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        b, s, d = x.shape
        segments = ctx.rows.get("segments", jnp.ones((b, s), jnp.int32))
        side = self.width // 2
        padded = jnp.pad(x, ((0, 0), (side, side), (0, 0)))
        of = jnp.pad(segments, ((0, 0), (side, side)))
        near = [
            jnp.where((of[:, t : t + s] == segments)[..., None], padded[:, t : t + s], 0) for t in range(self.width)
        ]
        read = jnp.stack(near, axis=-1).reshape(b * s, self.groups, -1)  # [B S, groups, share * width]
        y = jnp.swapaxes(dot(jnp.swapaxes(read, 0, 1), p["w"]), 0, 1).reshape(b, s, d) + p["b"].astype(x.dtype)
        y = activation(self.activation)(dropout(y, self.dropout, ctx, "convolved"))
        return constrain(y, ctx, "batch", "seq", "embed"), cache


@component(was=("Branched",))
class ParallelConvolution(LayerWrapper):
    """A layer with a branch beside it: norm(block(x) + branch(x)), for blocks that carry one stream (DeBERTa v2: a
    convolution beside the first layer, He et al. 2021, arXiv 2006.03654)."""

    block: Block
    branch: SubLayer
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if isinstance(self.residual, ResiDual):
            raise UserError("a branch joins one stream, but ResiDual carries two: choose another residual wiring")

    def spec(self, d: int) -> Tree:
        """The block's own, and the branch's beside it."""
        branch = {"branch": self.branch.spec(d)} | ({"branch_norm": self.norm.spec(d)} if self.norm else {})
        return self.block.spec(d) | branch

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return self.block.cache(d, shape) | {"branch": self.branch.cache(d, shape)}

    def __call__(self, p: Tree, x: Carry, ctx: Ctx, cache: Tree) -> tuple[Carry, Tree, Tree]:
        y, new, aux = self.block(p, x, ctx, cache)
        aux["branch"] = {}
        beside, own = self.branch(p["branch"], x, ctx.at("branch"), cache_of(cache, "branch"), aux["branch"])
        y = self.norm(p["branch_norm"], y + beside) if self.norm else y + beside
        return y, None if new is None else new | {"branch": own}, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return update_parts((("branch", self.branch),), self.block.update(p, aux), aux)
