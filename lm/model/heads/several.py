"""Heads made of heads, and none at all."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.heads.language import LMHead
from lm.model.heads.protocol import NOTHING, HeadLoss, LossTerms, vocabulary_loss

Array = jax.Array


@component(was=("States",))
class NoHead:
    """No head: the states themselves."""

    predicts: ClassVar[str] = NOTHING

    def spec(self, d: int) -> Tree:
        return {}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        return x.astype(jnp.float32)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        raise UserError("a model without a head predicts nothing: give it one")


@component
class StreamHead:
    """A head on the states of one stream of `lm.model.special.streams`, x [..., (1 + streams) d]; 1 predicts the next
    token."""

    head: LMHead | NoHead
    streams: int = 2
    stream: int = 1

    @property
    def predicts(self) -> str:
        return self.head.predicts

    def spec(self, d: int) -> Tree:
        return self.head.spec(d // (1 + self.streams))

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Any:
        return self.head(p, jnp.split(x, 1 + self.streams, axis=-1)[self.stream], ctx)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        """All predictors learn, each what stands next at its place; reported are those of the next token."""
        parts = jnp.split(x, 1 + self.streams, axis=-1)[1:]
        targets, weights = (jnp.tile(row, (1, self.streams)) for row in (targets, weights))
        joined = jnp.concatenate(parts, axis=1)  # [B, streams S, D]
        return vocabulary_loss(self.head, p, joined, targets, weights, ctx, terms, counted=x.shape[1])


@component
class Heads:
    """Several heads on the same states; the result is a dict with the scores of each, by name."""

    predicts: ClassVar[str] = NOTHING

    parts: tuple[tuple[str, Any], ...]

    def spec(self, d: int) -> Tree:
        return {name: head.spec(d) for name, head in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> dict[str, Array]:
        return {name: head(p[name], x, ctx.at(name)) for name, head in self.parts}

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        names = ", ".join(name for name, _ in self.parts)
        raise UserError(f"a model with the heads {names} has no one loss: take it with one of them")
