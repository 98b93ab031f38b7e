"""Heads made of heads, and none at all."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.heads.protocol import NOTHING, HeadLoss, LossTerms

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
