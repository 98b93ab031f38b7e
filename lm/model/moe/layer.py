"""Mixture of experts: the layer in which each token passes through a few of many feed-forward experts.

`lm.model.moe.routers` choose them, `lm.model.moe.dispatch` takes the tokens there and back.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.param import Tree, stack
from lm.model.cache import CacheShape
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.dispatch import Capacity, Dispatch, Experts
from lm.model.moe.routers import Router, SoftmaxRouter

Array = jax.Array


def _upgrade(stored: dict[str, Any]) -> dict[str, Any]:
    """The capacity was the layer's own: knobs `capacity_factor` and `group`."""
    knobs = {"factor": "capacity_factor", "group": "group"}
    own = {now: stored[was] for now, was in knobs.items() if was in stored}
    rest = {k: v for k, v in stored.items() if k not in knobs.values()}
    return {"dispatch": {"type": "Capacity", **own}, **rest} if own else rest


@component(upgrade=_upgrade)
class MoE:
    """A sub-layer x [B, S, D] -> [B, S, D] of `experts` copies of `expert`. Padding (segment 0) is not routed. Records
    the router's `RouterStats` in `aux`.

    experts: how many, E;
    expert: the sub-layer, without dropout;
    router: which experts a token goes to, how many of them (k), and their weights in its sum;
    dispatch: how it gets there, and whether a choice may be dropped."""

    places: ClassVar = {"expert": "experts"}  # of parameters, for `lm.core.ownership`

    experts: int
    expert: MLP | GatedMLP
    router: Router = SoftmaxRouter()
    dispatch: Dispatch = Capacity()

    def __post_init__(self) -> None:
        if self.expert.dropout:
            raise UserError(f"expert.dropout={self.expert.dropout} is not supported inside experts: use the residual's")

    def spec(self, d: int) -> Tree:
        experts = stack(self.expert.spec(d), self.experts, "expert")
        return {"router": self.router.spec(d, self.experts), "experts": experts}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        valid = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        routing = self.router(p["router"], x, valid, ctx)
        y, dropped = self.dispatch(Experts(self.expert, p["experts"], self.experts), x, routing, ctx)
        aux["router"] = dataclasses.replace(routing.stats, dropped=dropped)
        return constrain(y, ctx, "batch", "seq", "embed"), cache

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {"router": self.router.update(p["router"], aux["router"])}
