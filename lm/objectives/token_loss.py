"""The loss of predicted tokens, shared by most objectives, which differ in their examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.metrics import Bits, Sum, aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE
from lm.core.rows import Batch
from lm.model.heads import Head, HeadLoss, LossTerms
from lm.model.transformer import Model, head_ctx
from lm.objectives.objective import Loss, Needs, Scoring

Array = jax.Array


def _with_aux(stored: dict[str, Any]) -> dict[str, Any]:
    """The routers' weights were knobs of their own."""
    if not {"balance", "router_z"} & stored.keys():
        return stored
    now = {name: value for name, value in stored.items() if name not in ("balance", "router_z")}
    return now | {"aux": [[name, stored.get(name, weight)] for name, weight in TokenLoss.aux]}


@component(upgrade=_with_aux)
class TokenLoss:
    """Cross-entropy of `batch["targets"]` under `batch["weights"]`, as the model's head computes it, plus auxiliary
    losses of what the model recorded.

    z_loss: weight of squared logsumexp (PaLM)
    smoothing: share of the target's probability spread evenly over all tokens (Szegedy et al. 2016, 1512.00567)
    aux: (name, weight) of each auxiliary loss: routers record `balance` (Switch), `router_z` (ST-MoE) and others, which
        `lm.model.moe.stats.RouterStats.losses` lists
    chunk: positions whose logits exist at once"""

    z_loss: float = 0.0
    smoothing: float = 0.0
    aux: tuple[tuple[str, float], ...] = (("balance", 0.01), ("router_z", 0.0))
    chunk: int = 128

    def __post_init__(self) -> None:
        for name, weight in self.aux:
            in_range(weight, NOT_NEGATIVE, f"aux[{name!r}]")

    def terms(self, ahead: float = 0.0) -> LossTerms:
        """As heads read them."""
        return LossTerms(self.z_loss, self.smoothing, ahead, self.chunk)

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
        """With `cache` rows continue those of the previous batch, except where `reset`. `ahead`: weight of tokens
        further ahead, where the head predicts those."""
        targets, weights = batch["targets"], batch["weights"].astype(jnp.float32)
        if cache is not None:
            cache = emptied(cache, batch["reset"] > 0)
        x, cache, aux = model.hidden(params, batch, ctx, cache, dtype)
        x = predicting(x, targets, batch.get("predicted"))
        total, weight, metrics, rows, own = self.of_head(
            model.head, model.head_params(params), x, targets, weights, head_ctx(ctx, batch), self.terms(ahead)
        )
        aux = aux if own is None else aux | {"head": own}
        total += aux_losses(aux, self.aux)
        if "bytes" in batch:
            covered = batch["bytes"].sum().astype(jnp.float32)
            metrics = metrics | {"bits_per_byte": Bits(metrics["loss"].total, covered), "bytes": Sum(covered)}
        return Loss(total, weight, metrics | aux_metrics(aux), aux, cache, rows)

    def of_head(
        self, head: Head, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms
    ) -> HeadLoss:
        """What a head makes of its states x [B, S, D]: where other losses of tokens differ."""
        return head.loss(p, x, targets, weights, ctx, terms)


class TokenObjective:
    """Base of objectives whose loss is a `TokenLoss` or a `lm.objectives.joint.JointLoss`: they add `examples` and, at
    need, `needs` and `scoring`."""

    loss: Callable[..., Loss]  # a knob of each

    def needs(self) -> Needs:
        return Needs()

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring()

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        return self.loss(model, params, batch, ctx, dtype, cache)


def predicting(x: Array, targets: Array, predicted: Array | None = None) -> Array:
    """Of the states x [B, S, D], those that predict targets [B, P]: at the positions `predicted` [B, P], or the last
    P."""
    if predicted is None:
        return x[:, x.shape[1] - targets.shape[1] :]
    return jnp.take_along_axis(x, predicted[..., None], axis=1)


def emptied(cache: Tree, rows: Array) -> Tree:
    """`cache`, leaves [B, ...], set to zero, its first value, where `rows` (bool [B]) says so."""
    return jax.tree.map(lambda x: jnp.where(rows.reshape(-1, *(1,) * (x.ndim - 1)), 0, x).astype(x.dtype), cache)
