"""The losses of several heads at once, on the same states (`lm.model.heads.Heads`): BERT predicts hidden tokens and
tells whether two texts follow each other."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Mean, Metrics, Sum, aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE
from lm.core.rows import Batch
from lm.model.heads import HeadLoss, Heads
from lm.model.transformer import Model, head_ctx, with_part
from lm.objectives.objective import Loss
from lm.objectives.token_loss import TokenLoss, emptied, predicting

Array = jax.Array


@component
class JointLoss:
    """The sum of the mean losses of some of a model's heads, each times its weight: may stand where an objective has a
    `TokenLoss`. A batch has `NAME/targets` and `NAME/weights` of each head, of tokens [B, S] or of rows [B].

    Every mean is over all of a batch, however it is cut into microbatches. Reported are their weighted sum as `loss`,
    the number of all predictions as `tokens`, and `NAME/loss`, `NAME/accuracy` and so on of each head.

    heads: (name, weight) of each that learns
    each: what is minimised beside cross-entropy; auxiliary losses count once"""

    heads: tuple[tuple[str, float], ...]
    each: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if len(dict(self.heads)) < max(1, len(self.heads)):
            raise UserError(f"heads={self.heads} must name each head once, and at least one")
        for name, weight in self.heads:
            in_range(weight, NOT_NEGATIVE, f"heads[{name!r}]")

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike,
        cache: Tree = None,
    ) -> Loss:
        """With `cache` rows continue those of the previous batch, except where `reset`."""
        assert isinstance(model.head, Heads)  # `check_needs` has told the user
        if cache is not None:
            cache = emptied(cache, batch["reset"] > 0)
        x, cache, aux = model.hidden(params, batch, ctx, cache, dtype)
        known, p, ctx = dict(model.head.parts), model.head_params(params), head_ctx(ctx, batch)
        losses: dict[str, HeadLoss] = {}
        for name, _ in self.heads:
            targets, weights = batch[f"{name}/targets"], batch[f"{name}/weights"].astype(jnp.float32)
            states = predicting(x, targets, batch.get(f"{name}/predicted")) if targets.ndim > 1 else x
            losses[name] = known[name].loss(p[name], states, targets, weights, ctx.at(name), self.each.terms())
        loss = added_losses(losses, dict(self.heads), batch)
        return Loss(
            loss.total + aux_losses(aux, self.each.aux), loss.weight, loss.metrics | aux_metrics(aux), aux, cache
        )


@component
class OfHead(TokenLoss):
    """A `TokenLoss` of one of a model's several heads, such as that which learns first in a run of stages.

    head: its name"""

    head: str = "lm"

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike,
        cache: Tree = None,
        ahead: float = 0.0,
    ) -> Loss:
        return super().__call__(*with_part(model, params, self.head), batch, ctx, dtype, cache, ahead)


def check_joint(objective: object, loss: JointLoss, heads: str) -> None:
    """Raise `UserError` unless a loss has two heads, for what `heads` says."""
    if len(loss.heads) != 2:
        raise UserError(f"the loss of {type(objective).__name__} has {len(loss.heads)} heads: give two, for {heads}")


def added_losses(losses: dict[str, HeadLoss], weights: dict[str, float], batch: Batch) -> HeadLoss:
    """One loss of several: the sum of their means over the whole batch, each times its weight; by its name there is the
    batch's `NAME/total` (`lm.core.rows.with_totals`), without which the batch is whole.

    As losses are sums that are divided once, by the number of all predictions, each mean is times that number."""
    totals = {
        name: batch[f"{name}/total"][0] if f"{name}/total" in batch else loss.weight for name, loss in losses.items()
    }
    everything = sum(totals.values(), jnp.zeros(()))
    scales = {name: weights[name] * everything / jnp.maximum(total, 1.0) for name, total in totals.items()}
    weight = sum((loss.weight for loss in losses.values()), jnp.zeros(()))
    nll: Any = sum(scales[name] * loss.metrics["loss"].total for name, loss in losses.items())
    metrics: Metrics = {"loss": Mean(nll, weight), "tokens": Sum(weight)}
    for name, loss in losses.items():
        metrics |= {f"{name}/{metric}": value for metric, value in loss.metrics.items()}
    total = sum((scales[name] * loss.total for name, loss in losses.items()), jnp.zeros(()))
    return HeadLoss(total, weight, metrics)
