"""Routers by which experts take tokens, instead of tokens experts: every slot is filled, and none overflows.

Both look at all of a routing group, so that a token's output depends on tokens that follow it, and on other documents
in its row: they are for encoders. A decoder that is trained with one learns from what it will not see when it writes,
and reports losses that are too good; it is not `causal`, and does not decode with a cache.

Shapes: B batch, S tokens of a row, D model width, E experts; R routing groups of a row, N tokens and C or P slots of an
expert in a group.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.param import Constant, Initializer, Normal, Param, Tree
from lm.core.ranges import Count, Positive
from lm.core.rows import HIDDEN
from lm.model.layers import linear
from lm.model.moe.routers import Router, of_experts
from lm.model.moe.slots import Blend, Picks, SlotRouting, in_groups
from lm.model.moe.stats import RouterStats

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PickStats(RouterStats):
    """Of picks, `dropped` counts the tokens that no expert took."""

    @property
    def asked(self) -> Array:
        return self.tokens


@component
class ExpertChoice(Router):
    """Each expert takes the C = ceil(factor N / E) tokens of a group that give it the highest probabilities, which are
    its weights in their sums (Zhou et al. 2022, arXiv 2202.09368, eq. 1 and 2, without a limit of experts per token). A
    token may have many experts, or none. Loads are even whatever the router does, and balance losses constant.

    factor: experts of a token, on average (the paper's capacity factor);
    group: consecutive tokens of a row from which an expert takes; None: the whole row;
    init: initial weights"""

    gives: ClassVar[type] = SlotRouting
    ahead: ClassVar[bool] = True

    factor: Positive = 2.0
    group: Count | None = None
    init: Initializer = Normal()

    @property
    def k(self) -> float:
        return self.factor

    def spec(self, d: int, experts: int) -> Tree:
        return {"w": Param((d, experts), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> SlotRouting:
        n = min(self.group or x.shape[1], x.shape[1])
        capacity = min(n, math.ceil(self.factor * n / experts))
        logits = linear(p, x.astype(jnp.float32))
        probs = jax.nn.softmax(logits)
        offered = in_groups(probs * valid[..., None], n)  # 0: padding
        weights, picks = jax.lax.top_k(jnp.moveaxis(offered, 2, 3), capacity)  # [B, R, E, C]
        picks = jnp.minimum(picks + n * jnp.arange(offered.shape[1])[:, None, None], x.shape[1] - 1)
        slots = Picks(*(jnp.swapaxes(y, 1, 2).reshape(len(x), experts, -1) for y in (picks, weights)))
        used = (slots.weights > 0).astype(jnp.float32)
        load = used.sum(axis=-1)
        stats = PickStats.counted(load[:, None], valid, probs, logits)
        taken = Picks(slots.tokens, used).combine(jnp.swapaxes(used, 0, 1)[..., None], x.shape[1])[..., 0]
        missed = jnp.sum(valid & (taken == 0), axis=1).astype(jnp.float32)
        return SlotRouting(slots, dataclasses.replace(stats, dropped=missed), logits)

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        return of_experts(p, experts)


@component
class SoftMixture(Router):
    """Each slot has a mixture of all tokens of a group, and each token one of what experts make of all slots (Soft MoE,
    Puigcerver et al. 2023, arXiv 2308.00951): with logits = scale x . phi of unit vectors x and phi, a slot's weights
    are their softmax over tokens, a token's that over slots. Nothing is dropped, and nothing sparse but the work: E P
    slots instead of N tokens.

    slots: of each expert in a group, P;
    group: consecutive tokens of a row that are mixed; None: the whole row;
    init: initial phi; scale: initial scale"""

    gives: ClassVar[type] = SlotRouting
    ahead: ClassVar[bool] = True
    k: ClassVar[float] = math.inf

    slots: Count = 1
    group: Count | None = None
    init: Initializer = Normal(1.0)
    scale: float = 1.0

    def spec(self, d: int, experts: int) -> Tree:
        phi = Param((d, self.slots, experts), ("embed", None, None), self.init)
        return {"phi": phi, "scale": Param((1,), (None,), Constant(self.scale), "norm")}

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> SlotRouting:
        n = min(self.group or x.shape[1], x.shape[1])
        phi = p["scale"] * _unit(p["phi"], 0)
        logits = jnp.einsum("bsd,dpe->bsep", _unit(x.astype(jnp.float32), -1), phi)
        real = valid[..., None, None]
        flat = logits.reshape(*logits.shape[:2], -1)
        back = jax.nn.softmax(flat).reshape(logits.shape)
        grouped = in_groups(real, n)  # padding weighs nothing
        into = jax.nn.softmax(jnp.where(grouped, in_groups(logits, n), HIDDEN), axis=2)
        probs = back.sum(axis=-1)
        stats = RouterStats.counted((probs * valid[..., None]).sum(axis=1)[:, None], valid, probs, flat)
        return SlotRouting(Blend(into * grouped, in_groups(back, n) * grouped), stats)

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        return p | {"phi": of_experts({"phi": p["phi"]}, experts)["phi"]}


def _unit(x: Array, axis: int) -> Array:
    """x over its length along that axis."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis, keepdims=True) + 1e-12)
