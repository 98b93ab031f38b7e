"""The protocol of heads: from the stack's last states to predictions, and to their loss.

Wherever a model or an objective calls a head, `ctx.rows` holds the rows of these states, `tokens` included.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.ctx import Ctx
from lm.core.mesh import Sharding
from lm.core.metrics import Mean, Metrics, Sum
from lm.core.param import Tree
from lm.kernels.cross_entropy.select import cross_entropy
from lm.kernels.cross_entropy.spec import Terms, TokenLosses, token_losses
from lm.parallel.rows import summed_over_tokens

Array = jax.Array

# What heads may predict. An objective asks for one of these (`lm.objectives.objective.Needs`).
TOKENS = "tokens"  # one at each position
AHEAD = "tokens further ahead"  # at each position the next one and some after it
SPANS = "tokens of spans"  # hidden tokens, from the states beside their span
TOKEN_LABELS = "labels of tokens"
ROW_LABELS = "labels of rows"
NOTHING = "nothing"  # states, or several things at once: no single loss


class LossTerms(NamedTuple):
    """What is minimised beside cross-entropy, and how it is computed."""

    z_loss: float = 0.0  # weight of the squared logsumexp
    smoothing: float = 0.0  # share of the target's probability spread evenly over all classes
    ahead: float = 0.0  # weight of tokens further ahead, for heads that predict those
    chunk: int = 128  # positions whose logits exist at once


class HeadLoss(NamedTuple):
    """A loss as a sum and its weight, and metrics of the plain predictions: `loss` (nats), `accuracy`, `tokens`."""

    total: Array
    weight: Array
    metrics: Metrics
    rows: Mean | None = None  # what the loss in `metrics` is of each row [B], where the head tells them apart
    aux: Tree = None  # what the head's own layers recorded, if it has any: leaves [layers, B, ...]


@runtime_checkable
class Head(Protocol):
    """A component that reads the last states x [B, S, D]. Its scores use no random numbers."""

    @property
    def predicts(self) -> str:
        """One of the constants above."""

    def spec(self, d: int) -> Tree:
        """Parameters, for states of width d."""

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Any:
        """float32 scores: [B, S, V] of tokens, [B, S, classes] or [B, classes] of labels; or a dict of such."""

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        """The loss of `targets` (int [B, S]; [B] for labels of rows) under `weights` (float32, same shape), in chunks
        where there is a vocabulary. No gradient flows to the weights."""


def vocabulary_loss(
    head: Any, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms, counted: int | None = None
) -> HeadLoss:
    """The loss of a head that scores each position by itself. x [B, S, D], targets and weights [B, S]; metrics cover
    the first `counted` positions (None: all)."""
    own = Terms(terms.z_loss, terms.smoothing)

    def loss(sharding: Sharding | None, p: Tree, x: Array, targets: Array, weights: Array) -> tuple[Array, TokenLosses]:
        # Without the step's key: a head draws nothing, and what the kernel differentiates must not hold traced values.
        plain = Ctx(sharding=sharding, execution=ctx.execution, path=ctx.path)
        return cross_entropy(lambda p, h: head(p, h, plain), p, x, targets, weights, plain, own, terms.chunk)

    total, each = summed_over_tokens(loss, ctx.sharding, p, x, targets, weights)
    nll, hits, tokens = ((y * weights)[:, :counted].sum() for y in (each.nll, each.hit, jnp.ones_like(weights)))
    of_rows = Mean(*((y * weights)[:, :counted].sum(1) for y in (each.nll, jnp.ones_like(weights))))
    return HeadLoss(total, weights.sum(), reported(nll, hits, tokens), of_rows)


def label_loss(scores: Array, targets: Array, weights: Array, terms: LossTerms) -> HeadLoss:
    """The loss of given scores [..., classes]. A single score is that of class 1, against 0 for class 0."""
    if scores.shape[-1] == 1:
        scores = jnp.concatenate([jnp.zeros_like(scores), scores], axis=-1)
    nll, log_z, hit = token_losses(scores, targets)
    loss = (1 - terms.smoothing) * nll + terms.smoothing * (log_z - scores.mean(-1)) + terms.z_loss * jnp.square(log_z)
    sums = ((y * weights).sum() for y in (nll, hit, jnp.ones_like(weights)))
    return HeadLoss((loss * weights).sum(), weights.sum(), reported(*sums))


def reported(nll: Array, hits: Array, tokens: Array) -> Metrics:
    return {"loss": Mean(nll, tokens), "accuracy": Mean(hits, tokens), "tokens": Sum(tokens)}
