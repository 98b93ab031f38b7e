"""Convolutions over a text's tokens."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.cache import CacheShape
from lm.model.layers import ZEROS, activation

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
