"""A loss that follows what a model already finds likely (GOLD: Pang & He 2021, arXiv 2009.07839), as AlphaCode was
trained (Li et al. 2022, arXiv 2203.07814)."""

import dataclasses

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Mean
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE, POSITIVE
from lm.kernels.cross_entropy.select import cross_entropy
from lm.kernels.cross_entropy.spec import Terms
from lm.model.heads import TOKENS, Head, HeadLoss, LossTerms
from lm.model.heads.protocol import reported
from lm.objectives.token_loss import TokenLoss

Array = jax.Array


@component
class Gold(TokenLoss):
    """A `TokenLoss` in which a token counts max(p ** alpha, floor) times, where p, a constant, is its probability under
    the model: texts that the model can already write draw it more than those it cannot. And tempering: logits are
    divided by `temperature` in training, below 1 against overfitting; a model that was trained so is sampled
    with its logits divided by the same.

    Reported are plain cross-entropy and accuracy, tempered. The head runs twice over the states.

    alpha, floor: of a token's weight; alpha 0 is none. Published: 1/2 and 0.05
    temperature: published: 0.2"""

    alpha: float = 0.5
    floor: float = 0.05
    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self.alpha, NOT_NEGATIVE, "alpha")
        in_range(self.floor, NOT_NEGATIVE, "floor")
        in_range(self.temperature, POSITIVE, "temperature")

    def of_head(
        self, head: Head, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms
    ) -> HeadLoss:
        if head.predicts != TOKENS:
            raise UserError(f"loss Gold weighs tokens, but model.head {type(head).__name__} predicts {head.predicts}")
        tempered = Tempered(head, self.temperature, Ctx(sharding=ctx.sharding, execution=ctx.execution, path=ctx.path))
        _, each = cross_entropy(tempered, *jax.lax.stop_gradient((p, x)), targets, weights, ctx, chunk=terms.chunk)
        own = jnp.maximum(jnp.exp(-self.alpha * each.nll), self.floor)
        minimised = Terms(terms.z_loss, terms.smoothing)
        total, _ = cross_entropy(tempered, p, x, targets, weights * own, ctx, minimised, terms.chunk)
        nll, hits = each.nll * weights, each.hit * weights
        metrics = reported(nll.sum(), hits.sum(), weights.sum())
        return HeadLoss(total, weights.sum(), metrics, Mean(nll.sum(1), weights.sum(1)))


@dataclasses.dataclass(frozen=True)
class Tempered:
    """A head's logits divided by `temperature`, from states [B, S, D]."""

    head: Head
    temperature: float
    ctx: Ctx  # without the step's key, a traced value: a head draws nothing

    def __call__(self, p: Tree, x: Array) -> Array:
        return self.head(p, x, self.ctx) / self.temperature
