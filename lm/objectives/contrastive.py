"""States of texts that belong together, closer than those of others (InfoNCE: van den Oord et al. 2018, arXiv
1807.03748)."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Mean, aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.ranges import POSITIVE
from lm.core.rows import HIDDEN, Batch
from lm.kernels.cross_entropy.spec import token_losses
from lm.model.heads import ROW_LABELS, HeadLoss
from lm.model.heads.protocol import reported
from lm.model.transformer import Model, head_ctx
from lm.objectives.examples.together import TwoTexts
from lm.objectives.objective import Loss, Needs, Scoring

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Array = jax.Array


@component
class Contrastive:
    """Tell, of each text, which one of the batch's others belongs to it, by the cosine of their states, and the other
    way round (the mean of both: CodeT5+, Wang et al. 2023, arXiv 2305.07922). The model has one tower and a head of
    rows, such as `SequenceClassifier(256, at="mean")`, a projection, or one without outputs.

    Negatives are the other pairs of the batch, or of the microbatch where that is cut; there is no queue of past ones,
    as in CodeT5+, whose second stage is `TextAndCode`. Records are `Pairs`, one in a row (`config.data.packing="one"`).

    temperature: cosines are divided by it: 0.05 in SimCSE, 0.07 at first in CodeT5+, which learns it
    length: tokens of each text; longer ones are cut
    same: a text beside itself, told apart by dropout alone (SimCSE, Gao et al. 2021, arXiv 2104.08821)
    aux: as of `TokenLoss`"""

    temperature: float = 0.05
    length: int = 128
    same: bool = False
    aux: tuple[tuple[str, float], ...] = (("balance", 0.01), ("router_z", 0.0))

    def __post_init__(self) -> None:
        in_range(self.temperature, POSITIVE, "temperature")
        if self.length < 1:
            raise UserError(f"length={self.length} tokens of each text: give 1 or more")

    def needs(self) -> Needs:
        return Needs(head=ROW_LABELS, positions=self.length, channels=() if self.same else ("part",), alone=True)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> TwoTexts:
        return TwoTexts(self.length, self.same)

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
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
        recorded, states = [], []
        shared = {key: value for key, value in batch.items() if "/" not in key}
        other = {key.removeprefix("other/"): value for key, value in batch.items() if key.startswith("other/")}
        for name, rows in (("first", shared), ("other", shared | other)):
            here = ctx.at(name)
            x, _, aux = model.hidden(params, rows, here, None, dtype)
            recorded.append(aux)
            states.append(model.logits(params, x, head_ctx(here, rows)))
        aux = jax.tree.map(lambda *of_texts: jnp.concatenate(of_texts, axis=1), *recorded)  # [layers, 2 B, ...]
        weights = batch["pair/weights"].astype(jnp.float32)
        total, weight, metrics, each, _ = told_apart(cosines(*states) / self.temperature, weights)
        return Loss(total + aux_losses(aux, self.aux), weight, metrics | aux_metrics(aux), aux, None, each)


def cosines(first: Array, other: Array) -> Array:
    """float32 [B, B]: of each state [B, D] with each of the others."""
    first, other = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6) for x in (first, other))
    return first @ other.T


def told_apart(scores: Array, weights: Array) -> HeadLoss:
    """InfoNCE both ways, averaged: of each row and of each column of scores [B, B] the diagonal's is to be the highest,
    among those with weights [B] above 0."""
    own = jnp.arange(len(weights))
    ways = [token_losses(jnp.where(weights > 0, way, HIDDEN), own) for way in (scores, scores.T)]
    nll, hits = (weights * sum(column) / 2 for column in ([way[0] for way in ways], [way[2] for way in ways]))
    return HeadLoss(nll.sum(), weights.sum(), reported(nll.sum(), hits.sum(), weights.sum()), Mean(nll, weights))
