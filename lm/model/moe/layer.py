"""Mixture of experts: routers, and the layer that sends each token to a few of many feed-forward experts.

Shapes: R routing groups, N tokens per group, E experts, K choices per token, C capacity of an expert within a group.
A router leaves statistics per row of the batch in `aux`, which add up under any microbatching. The losses that they
make are weighed and added by the objective.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.core.metrics import AuxRecord, Mean, Metrics
from lm.core.param import Initializer, Normal, Param, Tree, stack
from lm.model.kv_sources import CacheShape
from lm.model.layers import ZEROS
from lm.model.mlp import MLP, GatedMLP

Array = jax.Array
Routing = tuple[Array, Array, Array, Array]  # weights, experts [..., K], probabilities, logits [..., E]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterStats(AuxRecord):
    """What a router did, by row of the batch; float32, of a stack with a leading axis for its layers. Sums over a row's
    tokens, so that rows add up under any microbatching."""

    load: Array  # [B, E] choices, before any was dropped
    prob: Array  # [B, E] probabilities
    z: Array  # [B] squared logsumexp of the logits
    dropped: Array  # [B] choices that did not fit
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


@component
class SoftmaxRouter:
    """The `k` most probable experts, weighted by their probabilities: Switch with k = 1 (Fedus et al. 2021, arXiv
    2101.03961), GShard and GLaM with k = 2. `renormalize` makes the k weights sum to one (Mixtral)."""

    k: int = 1
    renormalize: bool = False
    init: Initializer = Normal()

    def spec(self, d: int, experts: int) -> Tree:
        return {"w": Param((d, experts), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array) -> Routing:
        logits = dot(x.astype(jnp.float32), p["w"])
        probs = jax.nn.softmax(logits, axis=-1)
        weights, experts = jax.lax.top_k(probs, self.k)
        if self.renormalize:
            weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        return weights, experts, probs, logits


@component
class BalancedRouter:
    """Sigmoid scores with a balance bias that steers the choice only, and is moved by `rate` per step towards even
    loads instead of by a gradient (DeepSeek-V3, arXiv 2412.19437, section 2.1.2; Wang et al. 2024, 2408.15664)."""

    k: int = 1
    rate: float = 1e-3
    renormalize: bool = True
    init: Initializer = Normal()

    def spec(self, d: int, experts: int) -> Tree:
        balance = Param((experts,), (None,), ZEROS, "buffer")
        return {"w": Param((d, experts), ("embed", None), self.init), "balance": balance}

    def __call__(self, p: Tree, x: Array) -> Routing:
        logits = dot(x.astype(jnp.float32), p["w"])
        scores = jax.nn.sigmoid(logits)
        _, experts = jax.lax.top_k(scores + jax.lax.stop_gradient(p["balance"]), self.k)
        weights = jnp.take_along_axis(scores, experts, axis=-1)
        if self.renormalize:
            weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
        return weights, experts, scores / jnp.sum(scores, axis=-1, keepdims=True), logits

    def update(self, p: Tree, load: Array) -> Tree:
        """Raise the bias of experts that got less than their share, lower the others'. load [E]."""
        return p | {"balance": p["balance"] + self.rate * jnp.sign(jnp.mean(load) - load)}


@component
class MoE:
    """A sub-layer of `experts` copies of `expert`, each token passing through the few that `router` picks.

    Each expert takes at most capacity = ceil(capacity_factor * k * group / experts) tokens of a routing group (`group`
    consecutive tokens of one row; None: the whole row), first choices before second ones, earlier tokens before later
    ones; what does not fit is dropped (contributes zero). Padding (segment 0) is not routed.

    Records `RouterStats` in `aux`."""

    experts: int
    expert: MLP | GatedMLP
    router: SoftmaxRouter | BalancedRouter = SoftmaxRouter()
    capacity_factor: float = 1.25
    group: int | None = None

    def __post_init__(self) -> None:
        if self.router.k > self.experts:
            raise UserError(f"router.k={self.router.k} exceeds experts={self.experts}: lower k")
        if self.expert.dropout:
            raise UserError(f"expert.dropout={self.expert.dropout} is not supported inside experts: use the residual's")

    def spec(self, d: int) -> Tree:
        experts = stack(self.expert.spec(d), self.experts, "expert")
        return {"router": self.router.spec(d, self.experts), "experts": experts}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def capacity(self, group: int) -> int:
        return min(group, math.ceil(self.capacity_factor * self.router.k * group / self.experts))

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        b, s, d = x.shape
        valid = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones((b, s), bool)
        weights, picks, probs, logits = self.router(p["router"], x)
        chosen = jax.nn.one_hot(picks, self.experts, dtype=jnp.float32).sum(axis=2) * valid[..., None]  # [B, S, E]
        real = valid.astype(jnp.float32)

        n = min(self.group or s, s)
        pad = -s % n

        def grouped(y: Array) -> Array:  # [B, S, ...] -> [R, N, ...]
            return jnp.pad(y, ((0, 0), (0, pad)) + ((0, 0),) * (y.ndim - 2)).reshape(-1, n, *y.shape[2:])

        y, kept = self._route(p["experts"], grouped(x), grouped(weights), grouped(picks), grouped(valid), ctx)
        y = y.reshape(b, s + pad, d)[:, :s]
        aux["router"] = RouterStats(
            load=chosen.sum(axis=1),
            prob=(probs * real[..., None]).sum(axis=1),
            z=(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real).sum(axis=1),
            dropped=self.router.k * real.sum(axis=1) - kept.reshape(b, -1).sum(axis=1),
            tokens=real.sum(axis=1),
        )
        return constrain(y, ctx, "batch", "seq", "embed"), cache

    def _route(self, p: Tree, x: Array, weights: Array, picks: Array, valid: Array, ctx: Ctx) -> tuple[Array, Array]:
        """x [R, N, d], weights and picks [R, N, K], valid [R, N] -> y [R, N, d], tokens kept [R]."""
        r, n, d = x.shape
        capacity = self.capacity(n)
        slots = self.experts * capacity
        # Places are dealt out choice by choice, so that no second choice displaces a first one.
        expert = jnp.swapaxes(picks, 1, 2).reshape(r, -1)  # [R, K N]
        real = jnp.tile(valid, (1, self.router.k))
        taken = jax.nn.one_hot(expert, self.experts, dtype=jnp.int32) * real[..., None]
        place = jnp.take_along_axis(jnp.cumsum(taken, axis=1), expert[..., None], axis=2)[..., 0] - 1
        kept = real & (place < capacity)
        slot = jnp.where(kept, expert * capacity + place, slots)  # past the end: dropped
        token = jnp.broadcast_to(jnp.tile(jnp.arange(n), self.router.k), slot.shape)
        table = jnp.full((r, slots), n).at[jnp.arange(r)[:, None], slot].set(token, mode="drop")
        padded = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))  # row n: what an unused place reads
        inputs = jnp.take_along_axis(padded, table[..., None], axis=1).reshape(r, self.experts, capacity, d)
        inputs = constrain(jnp.swapaxes(inputs, 0, 1), ctx, "expert", "group", None, "embed")  # [E, R, C, d]

        bare = Ctx(execution=ctx.execution)
        y = jax.vmap(lambda own, rows: self.expert(own, rows, bare, None, {})[0])(p, inputs)
        y = constrain(y, ctx, "expert", "group", None, "embed")
        y = jnp.pad(jnp.swapaxes(y, 0, 1).reshape(r, slots, d), ((0, 0), (0, 1), (0, 0)))
        back = jnp.take_along_axis(y, slot[..., None], axis=1).reshape(r, self.router.k, n, d)
        return jnp.einsum("rknd,rnk->rnd", back, weights.astype(x.dtype)), kept.sum(axis=1).astype(jnp.float32)

    def update(self, p: Tree, aux: Tree) -> Tree:
        if not hasattr(self.router, "update"):
            return p
        return p | {"router": self.router.update(p["router"], aux["router"].load.sum(axis=0))}
