"""The head that tells hidden tokens from the states beside their span."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component, renamed
from lm.core.ctx import Ctx
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.heads.language import LMHead
from lm.model.heads.protocol import SPANS, HeadLoss, LossTerms, vocabulary_loss
from lm.model.layers import Norm, activation, linear, linear_spec

Array = jax.Array


@component(upgrade=renamed(places="max_span", place_width="position_width"))
class SpanBoundary:
    """SpanBERT's boundary objective: the tokens of a span, from the states beside it (Joshi et al. 2020, arXiv
    1907.10529, section 3.2). Two layers, each dense, activation and norm, read [x_left; x_right; position], then an
    `LMHead`. `max_span`: rows of the table of positions within a span, `position_width` its width.

    The batch's rows [B, S] are `span_left` and `span_right`, the indices of the tokens beside the span that a token is
    in, and `span_index`, its position there from 0. Without them each token is a span of its own."""

    predicts: ClassVar[str] = SPANS
    reads: ClassVar[tuple[str, ...]] = ("span_left", "span_right", "span_index")
    places: ClassVar = {"head": "lm"}  # of parameters, for `lm.core.ownership`

    head: LMHead
    norm: Norm
    activation: str = "gelu"
    max_span: int = 20
    position_width: int = 200
    width: int | None = None  # of the second layer; None: that of the states
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        return {
            "place": {"w": Param((self.max_span, self.position_width), ("position", None), self.init)},
            "dense1": linear_spec((2 * d + self.position_width, d), (None, "embed"), True, self.init),
            "norm1": self.norm.spec(d),
            "dense2": linear_spec((d, width), ("embed", None), True, self.init),
            "norm2": self.norm.spec(width),
            "lm": self.head.spec(width),
        }

    def states(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, D] -> what the inner head reads, [B, S, width]."""
        index = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        left, right = ctx.rows.get("span_left", index - 1), ctx.rows.get("span_right", index + 1)
        index_in_span = jnp.minimum(ctx.rows.get("span_index", jnp.zeros_like(index)), self.max_span - 1)
        beside = [jnp.take_along_axis(x, jnp.clip(at, 0, x.shape[1] - 1)[..., None], axis=1) for at in (left, right)]
        y = jnp.concatenate([*beside, take(p["place"]["w"], index_in_span, x.dtype)], axis=-1)
        for i in (1, 2):
            y = self.norm(p[f"norm{i}"], activation(self.activation)(linear(p[f"dense{i}"], y)))
        return y

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, D] -> float32 logits [B, S, V]."""
        return self.head(p["lm"], self.states(p, x, ctx), ctx)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return vocabulary_loss(self.head, p["lm"], self.states(p, x, ctx), targets, weights, ctx, terms)
