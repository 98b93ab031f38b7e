"""The router that takes the experts of the k highest scores.

Shapes: B batch, S tokens of a row, D model width, E experts, k choices per token.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component, in_range
from lm.core.ctx import Ctx, by_row, jitter
from lm.core.errors import UserError
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.ranges import POSITIVE, BelowOne, Count
from lm.model.layers import ZEROS, linear
from lm.model.moe.routers import Router, Routing, check_choices, of_experts
from lm.model.moe.stats import RouterStats, chosen

Array = jax.Array


@component
class Groups:
    """Experts in `number` groups of the same size, as they lie on nodes or devices: a token chooses among those of its
    `kept` best groups only, a group being as good as the sum of its `best` highest scores: 1 in DeepSeek-V2 (arXiv
    2405.04434, section 2.2.2), 2 in V3 (2412.19437)."""

    number: Count
    kept: Count
    best: Count = 1

    def check(self, k: int, experts: int) -> None:
        """Raise `UserError` where so many experts do not fall into such groups, or too few are left to choose from."""
        if experts % self.number:
            raise UserError(f"groups.number={self.number} does not divide experts={experts}: choose a divisor")
        if self.kept > self.number:
            raise UserError(f"groups.kept={self.kept} exceeds groups.number={self.number}: lower it")
        of_each = experts // self.number
        if self.best > of_each:
            raise UserError(f"groups.best={self.best} exceeds the {of_each} experts of a group: lower it")
        if k > self.kept * of_each:
            raise UserError(
                f"router.k={k} exceeds the {self.kept * of_each} experts of the groups.kept={self.kept} groups that "
                "are left to a token: raise kept, or lower k"
            )

    def sent(self, experts: Array, served: Array, number: int) -> Array:
        """Of these choices [B, S, k] among so many experts, tokens with a choice in each group, over `kept`, by row:
        [B, number of groups]."""
        groups = jax.nn.one_hot(experts // (number // self.number), self.number) * served[..., None]
        return groups.max(axis=2).sum(axis=1) / self.kept

    def __call__(self, scores: Array) -> Array:
        """The scores [..., E], those of other groups' experts -inf."""
        grouped = scores.reshape(*scores.shape[:-1], self.number, -1)
        quality = jax.lax.top_k(grouped, self.best)[0].sum(axis=-1)  # [..., number]
        kept = jax.nn.one_hot(jax.lax.top_k(quality, self.kept)[1], self.number).sum(axis=-2) > 0
        return jnp.where(kept[..., None], grouped, -jnp.inf).reshape(scores.shape)


SCORES: dict[str, Callable[[Array], Array]] = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}
# Of choices after the first, the probability with which training uses one, by its weight.
LATER: dict[str, Callable[[Array], Array] | None] = {"all": None, "random": lambda weight: jnp.minimum(1.0, 2 * weight)}


def _upgrade(stored: dict[str, Any]) -> dict[str, Any]:
    """Of formats up to 3: SoftmaxRouter, and BalancedRouter, whose scores were sigmoids."""
    if stored["type"] == "TopK":
        return stored
    balanced = stored["type"] == "BalancedRouter"
    knobs = {"score": "sigmoid", "rate": stored.get("rate", 1e-3)} if balanced else {}
    normalize = {"normalize": 1.0} if stored.get("renormalize", balanced) else {}
    rest = {name: value for name, value in stored.items() if name not in ("renormalize", "rate")}
    return rest | knobs | normalize


@component(was=("SoftmaxRouter", "BalancedRouter"), upgrade=_upgrade)
class TopK(Router):
    """The `k` experts of the highest scores, weighted by their scores. Switch has k = 1 (Fedus et al. 2021, arXiv
    2101.03961), Grok-1 k = 2, with `normalize=1` GShard, GLaM, Mixtral and Arctic k = 2, and DBRX 4. A softmax over the
    chosen logits alone (GPT-OSS, Granite) is the same as `normalize=1` of one over all.

    k: choices per token
    score: what the logits become: a "softmax" over all experts, or the "sigmoid" of each
    normalize: p of the p-norm that the k weights are divided by: with 1 they add up to one; None: they stay
    scale: the weights are multiplied by it, at last
    rate: each expert has a balance bias, which is added for the choice only, and is moved by so much per step towards
        even loads instead of by a gradient (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3); None: no such bias
    groups: where the choice is limited to some groups of experts
    bias: logits have one
    later: in training "all" choices are used, or those after the first at "random", with a probability of twice their
        weight (GShard, Lepikhin et al. 2020, arXiv 2006.16668, algorithm 1, with k = 2 and `normalize=1`)
    jitter: in training the router's input is multiplied by noise from 1 - jitter to 1 + jitter (Switch: 0.01)
    init: initial weights"""

    k: Count = 1
    score: str = "softmax"
    normalize: float | None = None
    scale: float = 1.0
    rate: float | None = None
    groups: Groups | None = None
    bias: bool = False
    later: str = "all"
    jitter: BelowOne = 0.0
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise UserError(f"router.score={self.score!r} is not among {', '.join(SCORES)}")
        if self.later not in LATER:
            raise UserError(f"router.later={self.later!r} is not among {', '.join(LATER)}")
        if self.normalize is not None:
            in_range(self.normalize, POSITIVE, "normalize")

    @property
    def any_order(self) -> bool:
        return not self.jitter and self.later == "all"

    def spec(self, d: int, experts: int) -> Tree:
        check_choices(self.k, experts)
        if self.groups is not None:
            self.groups.check(self.k, experts)
        spec = {"w": Param((d, experts), ("embed", None), self.init)}
        if self.bias:
            spec["b"] = Param((experts,), (None,), ZEROS, "bias")
        if self.rate is not None:
            spec["balance"] = Param((experts,), (None,), ZEROS, "buffer")
        return spec

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> Routing:
        logits = linear(p, jitter(x.astype(jnp.float32), self.jitter, ctx, "jitter"))
        scores = SCORES[self.score](logits)
        choice = scores + jax.lax.stop_gradient(p["balance"]) if self.rate is not None else scores
        _, picks = jax.lax.top_k(choice if self.groups is None else self.groups(choice), self.k)
        weights = jnp.take_along_axis(scores, picks, axis=-1)
        if self.normalize is not None:
            norm = jnp.linalg.norm(weights, self.normalize, axis=-1, keepdims=True)
            weights = weights / (norm + 1e-20)  # all sigmoids may vanish
        probs = scores if self.score == "softmax" else scores / jnp.sum(scores, axis=-1, keepdims=True)
        served = jnp.broadcast_to(valid[..., None], picks.shape) & self._used(weights, ctx)
        more = {}
        if self.rate is not None:
            more["scored"] = chosen(jax.lax.top_k(scores, self.k)[1], served, experts).sum(axis=1)
        if self.groups is not None:
            more["sent"] = self.groups.sent(picks, served, experts)
        return Routing.of(self.scale * weights, picks, probs, logits, served, **more)

    def _used(self, weights: Array, ctx: Ctx) -> Array:
        """bool [B, S, k]: the choices that are used, by their weights."""
        share = LATER[self.later]
        if share is None or ctx.key is None:
            return jnp.ones(weights.shape, bool)
        drawn = by_row(lambda key: jax.random.uniform(key, weights.shape[1:]), ctx, "later", len(weights))
        return (drawn < share(weights)).at[..., 0].set(True)

    def update(self, p: Tree, stats: RouterStats) -> Tree:
        """Raise the bias of experts that got less than their share, lower the others'."""
        if self.rate is None:
            return p
        load = stats.load.sum(axis=0)
        return p | {"balance": p["balance"] + self.rate * jnp.sign(jnp.mean(load) - load)}

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        if self.groups is not None:
            of_each = np.bincount(
                np.array(experts) * self.groups.number // p["w"].shape[-1], minlength=self.groups.number
            )
            if len(set(of_each.tolist())) > 1:
                raise UserError(
                    f"of each of the groups.number={self.groups.number} groups as many experts must be kept"
                )
        return of_experts(p, experts)
