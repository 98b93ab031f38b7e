"""From token ids to the stack's input."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import Norm, linear, linear_spec
from lm.model.positions import Learned, Sinusoidal

Array = jax.Array


@component
class Rows:
    """A table looked up by another row of the batch, `name` int [B, S]: token types (BERT), tasks (ERNIE), places
    within a span (GLM). Where a batch has no such row, all its tokens are of row 0."""

    name: str
    rows: int
    init: Initializer = Normal()


@component
class Embed:
    """Token table, plus positions, other tables, norm and dropout where a family has them. ids [B, S] -> [B, S, d].

    `scale` multiplies the tokens' rows (sqrt(d): Vaswani et al. 2017, Gemma). With `width` tables are narrower than d
    and a projection follows: of everything (ALBERT's factorised embedding, Lan et al. 2020, arXiv 1909.11942; ELECTRA)
    or, with `project_tokens`, of the tokens alone, before positions are added (OPT 350M)."""

    vocab: int
    position: Learned | Sinusoidal | None = None
    extra: tuple[Rows, ...] = ()
    norm: Norm | None = None
    scale: float = 1.0
    width: int | None = None
    project_tokens: bool = False
    project_bias: bool = False
    dropout: float = 0.0
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.width is None and (self.project_tokens or self.project_bias):
            raise UserError("an embedding without `width` has no projection: set width, or neither project knob")

    def spec(self, d: int) -> Tree:
        width = self.width or d
        inner = d if self.project_tokens else width
        spec: Tree = {"token": Param((self.vocab, width), ("vocab", "embed"), self.init)}
        spec |= {"position": self.position.spec(inner)} if self.position else {}
        spec |= {t.name: {"w": Param((t.rows, inner), ("position", None), t.init)} for t in self.extra}
        spec |= {"norm": self.norm.spec(inner)} if self.norm else {}
        if self.width:
            spec |= {"project": linear_spec((width, d), (None, "embed"), self.project_bias, self.init)}
        return spec

    @property
    def longest(self) -> int | None:
        """Number of positions there are rows for; None without a limit."""
        return self.position.longest if self.position else None

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, d: int, dtype: jax.typing.DTypeLike) -> Array:
        table = p["token"]
        if isinstance(table, jax.Array):  # whole rows, before the lookup: a lookup of split ones is partitioned badly
            table = constrain(table, ctx, "vocab", None)
        x = take(table, ids, dtype)
        if (share := ctx.run.embed_gradient) != 1:
            x = share * x + (1 - share) * jax.lax.stop_gradient(x)
        if self.scale != 1:
            x = x * self.scale
        if self.width and self.project_tokens:
            x = linear(p["project"], x)
        if self.position:
            x = x + self.position(p["position"], ctx.rows["positions"], x.shape[-1], dtype)
        for extra in self.extra:
            x = x + take(p[extra.name]["w"], ctx.rows.get(extra.name, jnp.zeros_like(ids)), dtype)
        if self.norm:
            x = self.norm(p["norm"], x)
        x = dropout(x, self.dropout, ctx, "embed")
        if self.width and not self.project_tokens:
            x = linear(p["project"], x)
        return constrain(x, ctx, "batch", "seq", "embed")
