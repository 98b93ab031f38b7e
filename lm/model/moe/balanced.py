"""The router whose training spreads tokens evenly over experts by solving an assignment problem.

Shapes: B batch, S tokens of a row, D model width, E experts; N tokens of a routing group, C = ceil(N / E).
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.ranges import Count, Positive
from lm.core.rows import HIDDEN
from lm.model.layers import linear
from lm.model.moe.routers import Router, Routing, of_experts
from lm.model.moe.slots import in_groups
from lm.model.moe.top_k import SCORES

Array = jax.Array


@component
class Auction:
    """Tokens to experts, C at most to each, at nearly the highest sum of scores (BASE layers, Lewis et al. 2021, arXiv
    2103.16716; Bertsekas 1992, "Auction algorithms for network flow problems"). In each round all tokens without an
    expert bid for the one that is worth most to them at its price, as much as makes it worth what the next best one is,
    and `step` more. An expert keeps its C highest bids, and its price is the lowest of these. The sum is within N steps
    of the highest. Tokens that after so many `rounds` have no expert take what places are left.

    step: over the range of a group's scores; rounds: at most"""

    step: Positive = 0.02
    rounds: Count = 100

    def __call__(self, scores: Array, valid: Array) -> Array:
        """scores [N, E], bool valid [N] -> the expert of each token [N]."""
        n, e = scores.shape
        places = -(-n // e)
        real = jnp.where(valid[:, None], scores, jnp.nan)
        step = self.step * jnp.maximum(jnp.nanmax(real) - jnp.nanmin(real), 1e-6)
        padded = jnp.pad(scores, ((0, 0), (0, max(2 - e, 0))), constant_values=HIDDEN)  # of one expert no next best

        def waits(state: tuple) -> Array:
            number, expert, *_ = state
            return (number < self.rounds) & jnp.any(valid & (expert < 0))

        def one_round(state: tuple) -> tuple:
            number, expert, bid, price = state
            worth = padded.at[:, :e].add(-price)
            (best, next_best), best_at = jax.lax.top_k(worth, 2)[0].T, jnp.argmax(worth, axis=1)
            offer = price[best_at] + jnp.minimum(best - next_best, -HIDDEN / 2) + step
            bids = valid & (expert < 0)
            expert, bid = jnp.where(bids, best_at, expert), jnp.where(bids, offer, bid)
            offers = jnp.where(expert == jnp.arange(e)[:, None], bid, -jnp.inf)  # [E, N]
            highest, who = jax.lax.top_k(offers, places)
            held = jnp.zeros((e, n), bool).at[jnp.arange(e)[:, None], who].set(highest > -jnp.inf).any(axis=0)
            price = jnp.where(highest[:, -1] > -jnp.inf, highest[:, -1], price)
            return number + 1, jnp.where(held, expert, -1), bid, price

        start = (0, jnp.full(n, -1), jnp.zeros(n), jnp.zeros(e))
        _, expert, _, _ = jax.lax.while_loop(waits, one_round, start)
        left = valid & (expert < 0)
        free = places - jnp.bincount(jnp.where(expert < 0, e, expert), length=e + 1)[:e]
        place = jnp.searchsorted(jnp.cumsum(free), jnp.cumsum(left) - 1, side="right")
        return jnp.where(left, place, jnp.maximum(expert, 0)).astype(jnp.int32)


@component
class Sinkhorn:
    """Each token's largest share in the transport plan that is nearest to the softmax of its scores among those that
    give every expert as much (S-BASE of Clark et al. 2022, arXiv 2202.01169): after `rounds` of scaling columns and
    rows in turn (Sinkhorn and Knopp 1967). Shares are even, choices nearly so."""

    rounds: Count = 10

    def __call__(self, scores: Array, valid: Array) -> Array:
        """scores [N, E], bool valid [N] -> the expert of each token [N]."""
        logits = jnp.where(valid[:, None], scores, HIDDEN)

        def scaled(_: int, column: Array) -> Array:
            by_token = logits - column - jax.nn.logsumexp(logits - column, axis=1, keepdims=True)
            by_token = jnp.where(valid[:, None], by_token, HIDDEN)
            return column + jax.nn.logsumexp(by_token, axis=0)

        column = jax.lax.fori_loop(0, self.rounds, scaled, jnp.zeros(scores.shape[1]))
        return jnp.argmax(scores - column, axis=1).astype(jnp.int32)


@component
class BalancedAssignment(Router):
    """One expert for each token. Training assigns the tokens of a group to experts in equal parts, by which no balance
    loss is needed; evaluation takes the highest score. Without a gradient: only the weight has one, the score of the
    expert that was assigned: of BASE layers the sigmoid of its logit, of S-BASE its probability. Where the weight is 1,
    the router stays as it began (CPM-2, Zhang et al. 2021, arXiv 2106.10715).

    A token's expert in training depends on the whole group, tokens that follow it included, but its evaluation on
    itself alone. Where the dispatch is `Capacity(1.0)` of the same group, an `Auction` leaves none without a place.

    assignment: how tokens are assigned, `Auction` or `Sinkhorn`;
    score: of a logit, the weight: "sigmoid" or "softmax"; None: it is 1;
    group: consecutive tokens of a row that are assigned together; None: the whole row;
    init: initial weights"""

    k: ClassVar[float] = 1

    assignment: Auction | Sinkhorn = Auction()
    score: str | None = "sigmoid"
    group: Count | None = None
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.score is not None and self.score not in SCORES:
            raise UserError(f"router.score={self.score!r} is not among {', '.join(SCORES)}")

    def spec(self, d: int, experts: int) -> Tree:
        return {"w": Param((d, experts), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> Routing:
        logits = linear(p, x.astype(jnp.float32))
        pick = jnp.argmax(logits, axis=-1) if ctx.key is None else self._assigned(logits, valid)
        scores = SCORES[self.score](logits) if self.score else jnp.ones_like(logits)
        weights = jnp.take_along_axis(scores, pick[..., None], axis=-1)
        return Routing.of(weights, pick[..., None], jax.nn.softmax(logits), logits, valid)

    def _assigned(self, logits: Array, valid: Array) -> Array:
        """The expert of each token [B, S]."""
        n = min(self.group or logits.shape[1], logits.shape[1])
        scores, real = (in_groups(y, n) for y in (jax.lax.stop_gradient(logits), valid))
        picks = jax.vmap(jax.vmap(self.assignment))(scores, real)
        return picks.reshape(len(logits), -1)[:, : logits.shape[1]]

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        return of_experts(p, experts)
