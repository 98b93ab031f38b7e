"""Routers: to which experts a token goes, and with what weights.

Shapes: B batch, S tokens of a row, D model width, E experts, k choices per token.
"""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.core.metrics import AuxRecord, Mean, Metrics
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import ZEROS

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterStats(AuxRecord):
    """What a router did, by row of the batch; float32, of a stack with a leading axis for its layers. Sums over a row's
    tokens, so that rows add up under any microbatching.

    A router with losses or metrics of its own returns a subclass (a registered dataclass as well)."""

    load: Array  # [B, E] choices, before any was dropped
    prob: Array  # [B, E] probabilities
    z: Array  # [B] squared logsumexp of the logits
    dropped: Array  # [B] choices that were not served: zero from the router, filled in once they are dispatched
    tokens: Array  # [B]

    def losses(self) -> dict[str, Mean]:
        """`balance`: E * sum_e f_e P_e per row, f_e the share of choices, P_e the mean probability (Fedus et al. 2021,
        arXiv 2101.03961, eq. 4), 1 when even; `router_z`: mean logsumexp(logits)^2 (ST-MoE, Zoph et al. 2022, arXiv
        2202.08906)."""
        share = self.load / jnp.maximum(self.load.sum(-1, keepdims=True), 1)
        mean = self.prob / jnp.maximum(self.tokens[..., None], 1)
        layers, experts = self.tokens.shape[0], self.load.shape[-1]
        balance = jnp.sum(experts * jnp.sum(share * mean, axis=-1) * self.tokens)
        return {"balance": Mean(balance, layers), "router_z": Mean(jnp.sum(self.z), layers)}

    def metrics(self) -> Metrics:
        """`router_dropped`: share of the choices; `router_peak`: the busiest expert's load over an even one, averaged
        over layers."""
        choices = self.load.sum()
        peak = (self.load.sum(1).max(-1) * self.load.shape[-1]).sum()
        return {"router_dropped": Mean(self.dropped.sum(), choices), "router_peak": Mean(peak, choices)}


class Routing(NamedTuple):
    """Where the tokens of a batch go."""

    weights: Array  # [B, S, k] float32: of each choice in a token's sum
    experts: Array  # [B, S, k] int32: the choices, first ones first
    valid: Array  # [B, S] bool: tokens that go anywhere; padding does not
    stats: RouterStats

    @classmethod
    def of(cls, weights: Array, experts: Array, probs: Array, logits: Array, valid: Array) -> "Routing":
        """The routing of these choices [B, S, k], with statistics of the router's probs and logits [B, S, E]."""
        chosen = jax.nn.one_hot(experts, probs.shape[-1], dtype=jnp.float32).sum(axis=2) * valid[..., None]
        real = valid.astype(jnp.float32)
        stats = RouterStats(
            load=chosen.sum(axis=1),
            prob=(probs * real[..., None]).sum(axis=1),
            z=(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real).sum(axis=1),
            dropped=jnp.zeros(len(valid)),
            tokens=real.sum(axis=1),
        )
        return cls(weights, experts, valid, stats)


class Router(abc.ABC):
    """The router protocol. A router is a component, and scores in float32 whatever the compute dtype.

    What it makes of a token depends on that token's row alone: else microbatches and pipelines would route otherwise
    than a whole batch. Its losses are those of its statistics (`RouterStats.losses`), which the objective weighs by
    their names and adds."""

    @abc.abstractmethod
    def spec(self, d: int, experts: int) -> Tree:
        """Its parameters for tokens of width d. Raises `UserError` where so few experts do not suffice."""

    @abc.abstractmethod
    def __call__(self, p: Tree, x: Array, valid: Array, ctx: Ctx) -> Routing:
        """Tokens x [B, S, D] to their experts; those that are not valid, bool [B, S], count in no statistic."""

    def update(self, p: Tree, stats: RouterStats) -> Tree:
        """Move its buffers after a step, given the statistics of the whole batch."""
        return p


def check_choices(k: int, experts: int) -> None:
    """Raise `UserError` where a token would choose more experts than there are."""
    if k > experts:
        raise UserError(f"router.k={k} exceeds experts={experts}: lower k")


@component
class SoftmaxRouter(Router):
    """The `k` most probable experts, weighted by their probabilities: Switch with k = 1 (Fedus et al. 2021, arXiv
    2101.03961), GShard and GLaM with k = 2. `renormalize` makes the k weights sum to one (Mixtral)."""

    k: int = 1
    renormalize: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, experts: int) -> Tree:
        check_choices(self.k, experts)
        return {"w": Param((d, experts), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array, valid: Array, ctx: Ctx) -> Routing:
        logits = dot(x.astype(jnp.float32), p["w"])
        probs = jax.nn.softmax(logits, axis=-1)
        weights, experts = jax.lax.top_k(probs, self.k)
        if self.renormalize:
            weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        return Routing.of(weights, experts, probs, logits, valid)


@component
class BalancedRouter(Router):
    """Sigmoid scores with a balance bias that steers the choice only, and is moved by `rate` per step towards even
    loads instead of by a gradient (DeepSeek-V3, arXiv 2412.19437, section 2.1.2; Wang et al. 2024, 2408.15664)."""

    k: int = 1
    rate: float = 1e-3
    renormalize: bool = True
    init: Initializer = Normal()

    def spec(self, d: int, experts: int) -> Tree:
        check_choices(self.k, experts)
        balance = Param((experts,), (None,), ZEROS, "buffer")
        return {"w": Param((d, experts), ("embed", None), self.init), "balance": balance}

    def __call__(self, p: Tree, x: Array, valid: Array, ctx: Ctx) -> Routing:
        logits = dot(x.astype(jnp.float32), p["w"])
        scores = jax.nn.sigmoid(logits)
        _, experts = jax.lax.top_k(scores + jax.lax.stop_gradient(p["balance"]), self.k)
        weights = jnp.take_along_axis(scores, experts, axis=-1)
        if self.renormalize:
            weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
        probs = scores / jnp.sum(scores, axis=-1, keepdims=True)
        return Routing.of(weights, experts, probs, logits, valid)

    def update(self, p: Tree, stats: RouterStats) -> Tree:
        """Raise the bias of experts that got less than their share, lower the others'."""
        load = stats.load.sum(axis=0)
        return p | {"balance": p["balance"] + self.rate * jnp.sign(jnp.mean(load) - load)}
