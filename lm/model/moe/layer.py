"""Mixture of experts: the layer in which each token passes through a few of many feed-forward experts.

`lm.model.moe.routers` choose them, `lm.model.moe.dispatch` takes the tokens there and back.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, tap
from lm.core.errors import UserError
from lm.core.param import Normal, Param, Tree, stack
from lm.model.cache import CacheShape
from lm.model.layers import ZEROS, linear, linear_spec
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.dispatch import Capacity, Dispatch, Experts
from lm.model.moe.expert_parallel import dispatched
from lm.model.moe.routers import Router, Routing
from lm.model.moe.top_k import TopK
from lm.model.order import any_order

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
    the router's `RouterStats` in `aux`, and if asked its "router_logits" [B, S, E].

    experts: how many, E;
    expert: the sub-layer, without dropout;
    router: which experts a token goes to, how many of them (k), and their weights in its sum;
    dispatch: how it gets there, and whether a choice may be dropped;
    shared: a sub-layer that every token passes through besides, whose output is added (DeepSeekMoE, Dai et al. 2024,
        arXiv 2401.06066: several shared experts are one that is as wide as all of them);
    shared_gate: its output is multiplied by the sigmoid of a score of the token (Qwen1.5-MoE);
    bias: the sum has one (JetMoE)."""

    places: ClassVar = {"expert": "experts"}  # of parameters, for `lm.core.ownership`

    experts: int
    expert: MLP | GatedMLP
    router: Router = TopK()
    dispatch: Dispatch = Capacity()
    shared: MLP | GatedMLP | None = None
    shared_gate: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        if self.expert.dropout:
            raise UserError(f"expert.dropout={self.expert.dropout} is not supported inside experts: use the residual's")
        if self.shared_gate and self.shared is None:
            raise UserError("shared_gate=True, but there is no shared expert: give one, or no gate")

        if self.router.gives is not self.dispatch.takes:
            itself = "fills" if self.dispatch.takes is Routing else "does not fill"
            remedy = "RouterSlots" if self.dispatch.takes is Routing else "Capacity or Dropless"
            raise UserError(
                f"{type(self.router).__name__} {itself} the experts' slots itself: let dispatch be {remedy}"
            )

    @property
    def any_order(self) -> bool:
        return any_order(self.router) and any_order(self.dispatch) and (self.shared is None or any_order(self.shared))

    def spec(self, d: int) -> Tree:
        experts = stack(self.expert.spec(d), self.experts, "expert")
        spec = {"router": self.router.spec(d, self.experts), "experts": experts}
        if self.shared is not None:
            spec["shared"] = self.shared.spec(d)
        if self.shared_gate:
            spec["shared_gate"] = linear_spec((d, 1), ("embed", None), False, Normal())
        if self.bias:
            spec["b"] = Param((d,), ("embed",), ZEROS, "bias")
        return spec

    def cache(self, d: int, shape: CacheShape) -> Tree:
        if self.router.ahead:
            raise UserError(
                f"{type(self.router).__name__} looks at the whole text and cannot decode token by token: use it in an "
                "encoder, or take another router"
            )
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        valid = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        routing = self.router(p["router"], x, valid, self.experts, ctx)
        if routing.logits is not None:
            tap(aux, ctx, "router_logits", routing.logits)
        y, dropped = dispatched(self.dispatch, Experts(self.expert, p["experts"], self.experts), x, routing, ctx)
        aux["router"] = dataclasses.replace(routing.stats, dropped=dropped)
        if self.shared is not None:
            every, _ = self.shared(p["shared"], x, ctx.at("shared"), None, aux)
            y = y + (jax.nn.sigmoid(linear(p["shared_gate"], x)) * every if self.shared_gate else every)
        y = y + p["b"].astype(y.dtype) if self.bias else y
        return constrain(y, ctx, "batch", "seq", "embed"), cache

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {"router": self.router.update(p["router"], aux["router"])}
