"""From token ids to the stack's input."""

import math

import jax

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import Norm
from lm.model.positions import Learned, Sinusoidal

Array = jax.Array


@component
class Embed:
    """Token table, plus positions, norm and dropout where a family has them. ids [B, S] -> [B, S, d].

    `scaled` multiplies the table's rows by sqrt(d) (Vaswani et al. 2017, Gemma)."""

    vocab: int
    position: Learned | Sinusoidal | None = None
    norm: Norm | None = None
    scaled: bool = False
    dropout: float = 0.0
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        spec = {"token": Param((self.vocab, d), ("vocab", "embed"), self.init)}
        spec |= {"position": self.position.spec(d)} if self.position else {}
        return spec | ({"norm": self.norm.spec(d)} if self.norm else {})

    @property
    def longest(self) -> int | None:
        """Number of positions there are rows for; None without a limit."""
        return self.position.rows if isinstance(self.position, Learned) else None

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, d: int, dtype: jax.typing.DTypeLike) -> Array:
        table = p["token"]
        if isinstance(table, jax.Array):  # whole rows, before the lookup: a lookup of split ones is partitioned badly
            table = constrain(table, ctx, "vocab", None)
        x = take(table, ids, dtype)
        if (share := ctx.run.embed_gradient) != 1:
            x = share * x + (1 - share) * jax.lax.stop_gradient(x)
        if self.scaled:
            x = x * math.sqrt(d)
        if self.position:
            x = x + self.position(p["position"], ctx.rows["positions"], d, dtype)
        if self.norm:
            x = self.norm(p["norm"], x)
        return constrain(dropout(x, self.dropout, ctx, "embed"), ctx, "batch", "seq", "embed")
