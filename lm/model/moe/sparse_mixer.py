"""SparseMixer: two experts that training draws, with a gradient for the draw.

Shapes: B batch, S tokens of a row, D model width, E experts.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, by_row, jitter
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.ranges import BelowOne, NotNegative
from lm.model.layers import linear
from lm.model.moe.routers import Router, Routing, check_choices, of_experts

Array = jax.Array
MIDPOINT = 0.25  # of Heun's third-order method: how often a draw besides the best expert keeps its whole weight


@component
class SparseMixer(Router):
    """Two experts, one after the other, each among those whose logits s are near the best m of those left: (m - s) /
    max(|s|, m) <= 2 `slack`. Its weight is its probability under a softmax over these (SparseMixer-v2 of GRIN, Liu et
    al. 2024, arXiv 2409.12136; PhiMoE).

    Training draws the expert from that softmax, evaluation takes the best. A drawn one that is not the best has, in
    three of four draws, a third of its weight, while the gradient is always that of the whole weight: so the router's
    gradient is, on average, that of Heun's third-order method (after SparseMixer, Liu et al. 2023, 2310.00811).

    slack: how near; jitter: in training the router's input is multiplied by noise from 1 - jitter to 1 + jitter;
    init: initial weights"""

    k: ClassVar[int] = 2

    slack: NotNegative = 0.01
    jitter: BelowOne = 0.0
    init: Initializer = Normal()

    def spec(self, d: int, experts: int) -> Tree:
        check_choices(2, experts)
        return {"w": Param((d, experts), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> Routing:
        logits = linear(p, jitter(x.astype(jnp.float32), self.jitter, ctx, "jitter"))
        first, weight = self._choice(logits, logits, ctx, "first")
        rest = jnp.where(jax.nn.one_hot(first, experts, dtype=bool), -jnp.inf, logits)
        second, other = self._choice(logits, rest, ctx, "second")
        picks, weights = jnp.stack([first, second], -1), jnp.stack([weight, other], -1)
        return Routing.of(weights, picks, jax.nn.softmax(logits), logits, valid)

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        return of_experts(p, experts)

    def _choice(self, logits: Array, left: Array, ctx: Ctx, site: str) -> tuple[Array, Array]:
        """An expert of each token [B, S], of those with logits `left` [B, S, E], and its weight."""
        best = jnp.max(left, axis=-1, keepdims=True)
        far = (best - logits) / jnp.maximum(jnp.abs(logits), best) > 2 * self.slack
        near = jnp.where(far, -jnp.inf, left)
        top, probs = jnp.argmax(left, axis=-1), jax.nn.softmax(near)
        if ctx.key is None:
            return top, _of(probs, top)
        noise = by_row(lambda key: jax.random.gumbel(key, left.shape[1:]), ctx, site, len(left))
        luck = by_row(lambda key: jax.random.uniform(key, left.shape[1:-1]), ctx, f"{site} share", len(left))
        drawn = jnp.argmax(near + noise, axis=-1)
        weight = _of(probs, drawn)
        share = jnp.where((drawn == top) | (luck < MIDPOINT), 1.0, 1 / 3)
        return drawn, weight + jax.lax.stop_gradient((share - 1) * weight)


def _of(probs: Array, expert: Array) -> Array:
    """Each token's probability of its expert: [..., E] and [...] -> [...]."""
    return jnp.take_along_axis(probs, expert[..., None], axis=-1)[..., 0]
