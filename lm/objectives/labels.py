"""Supervised learning of labels: of rows, of tokens, and of where an answer stands."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import F1, Matthews, Mean, Metrics, Pearson, Sum, aux_losses, aux_metrics
from lm.core.param import Tree
from lm.core.rows import HIDDEN, Batch
from lm.model.heads.protocol import ROW_LABELS, TOKEN_LABELS, TOKENS, HeadLoss, label_loss
from lm.model.transformer import Model, head_ctx
from lm.objectives.examples.labels import NextTokensLabelled, ReadRecord, RowLabelled, SpanLabelled, TokenLabelled
from lm.objectives.joint import JointLoss, check_joint
from lm.objectives.objective import Loss, Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective

Array = jax.Array


class LabelObjective:
    """Base: `loss_of(scores, batch)` of what the head gives, and auxiliary losses of what the model recorded.

    Knobs that all have:
    start: the first token of the decoder beside an encoder, which reads the text behind it (BART, T5: the head reads
        its state at the end of the text); None: a model of one tower
    types: whether token types tell two texts apart (BERT)
    loss: smoothing and auxiliary losses"""

    start: int | None
    types: bool
    loss: TokenLoss

    loss_of: Callable[..., HeadLoss]

    @property
    def read(self) -> ReadRecord:
        return ReadRecord(self.start, self.types)

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring()

    def _needs(self, head: str, *channels: str, alone: bool, classes: int | None = None) -> Needs:
        """`types` and the encoder are read where the knobs say so."""
        rows = ("types",) * self.types + ("encoder/tokens",) * (self.start is not None)
        channels += ("part",) * (self.types and "part" not in channels)
        return Needs(head, rows=rows, channels=channels, alone=alone, classes=classes)

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        x, cache, aux = model.hidden(params, batch, ctx, cache, dtype)
        scores = model.head(model.head_params(params), x, head_ctx(ctx, batch))
        total, weight, metrics, rows, _ = self.loss_of(scores, batch)
        metrics = metrics | aux_metrics(aux)
        return Loss(total + aux_losses(aux, self.loss.aux), weight, metrics, aux, cache, rows)


@component
class Classification(LabelObjective):
    """The class of each row (`config.data.records.type=Labelled`), of one record (`config.data.packing=one`), by
    cross-entropy. Reported are `loss`, `accuracy`, `f1` of class 1 where there are two, `macro_f1` and `matthews`."""

    classes: int = 2
    start: int | None = None
    types: bool = False
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        _check_classes(self.classes)

    def needs(self) -> Needs:
        return self._needs(ROW_LABELS, "label", alone=True, classes=self.classes)

    def examples(self, tokenizer: Any = None) -> RowLabelled:
        return RowLabelled(self.read)

    def loss_of(self, scores: Array, batch: Batch) -> HeadLoss:
        """scores [B, classes], or [B, 1]"""
        return _classified(scores, batch, self.classes, self.loss)


@component
class TokenClassification(LabelObjective):
    """The class of each labelled token (`config.data.records.type=Tagged`). Rows may hold several records, packed by
    best fit. Metrics as of `Classification`, over tokens."""

    classes: int = 2
    start: int | None = None
    types: bool = False
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        _check_classes(self.classes)

    def needs(self) -> Needs:
        return self._needs(TOKEN_LABELS, "label", "target", alone=False, classes=self.classes)

    def examples(self, tokenizer: Any = None) -> TokenLabelled:
        return TokenLabelled(self.read)

    def loss_of(self, scores: Array, batch: Batch) -> HeadLoss:
        """scores [B, S, classes]"""
        return _classified(scores, batch, self.classes, self.loss)


@component
class Regression(LabelObjective):
    """A real number of each row (`config.data.records.type=Labelled` with `values`), by the squared error of a head of
    one output. Reported are `loss`, the mean squared error of what the head gives, and `pearson`.

    center, scale: the head gives (label - center) / scale; labels far from 0 are learned, and their correlation is
        computed, far better so"""

    center: float = 0.0
    scale: float = 1.0
    start: int | None = None
    types: bool = False
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UserError(f"scale={self.scale} of labels: give more than 0, such as their standard deviation")

    def needs(self) -> Needs:
        return self._needs(ROW_LABELS, "label", alone=True, classes=1)

    def examples(self, tokenizer: Any = None) -> RowLabelled:
        return RowLabelled(self.read, self.center, self.scale)

    def loss_of(self, scores: Array, batch: Batch) -> HeadLoss:
        """scores [B, 1]"""
        y, weights = batch["targets"], batch["weights"].astype(jnp.float32)
        x = scores[:, 0]
        error = jnp.square(x - y) * weights
        total, weight = error.sum(), weights.sum()
        sums = ((weights * z).sum() for z in (x, y, x * x, y * y, x * y))
        metrics: Metrics = {"loss": Mean(total, weight), "tokens": Sum(weight), "pearson": Pearson(weight, *sums)}
        return HeadLoss(total, weight, metrics, Mean(error, weights))


@component
class AnswerSpans(LabelObjective):
    """Where the answer begins and ends (`config.data.records.type=Answers`), each by cross-entropy over the tokens of
    the row, with a head of two scores a token, of one record a row (`config.data.packing=one`). Reported are `loss`,
    `accuracy` of both places, and `exact`, the share of answers whose both places are right."""

    start: int | None = None
    types: bool = False
    loss: TokenLoss = TokenLoss()

    def needs(self) -> Needs:
        return self._needs(TOKEN_LABELS, "label", "part", alone=True)

    def examples(self, tokenizer: Any = None) -> SpanLabelled:
        return SpanLabelled(self.read)

    def loss_of(self, scores: Array, batch: Batch) -> HeadLoss:
        """scores [B, S, 2]"""
        if scores.shape[-1] != 2:
            raise UserError(f"AnswerSpans needs a head of 2 outputs, a beginning and an end: it has {scores.shape[-1]}")
        real = batch["segments"] > 0
        places = jnp.where(real[:, None], jnp.swapaxes(scores, 1, 2), HIDDEN)  # [B, 2, S]
        weights = batch["weights"].astype(jnp.float32)
        found = label_loss(places, batch["targets"], weights, self.loss.terms()._replace(smoothing=0.0, z_loss=0.0))
        hits = (places.argmax(-1) == batch["targets"]).all(-1)
        exact = Mean((hits * weights[:, 0]).sum(), weights[:, 0].sum())
        return found._replace(metrics=found.metrics | {"exact": exact})


@component
class NextTokenAndLabel(TokenObjective):
    """The class of each row and, beside it, each of its tokens from those before it, for a decoder with a head for
    either. Rows are those of `Classification`.

    A classifier that goes on as a language model generalises better: GPT's fine-tuning weighs tokens by 0.5 (Radford et
    al. 2018). Or texts that a model wrote (class 0) are told from originals (1), by which ERNIE 3.0 Titan ranks what it
    writes (Wang et al. 2021, arXiv 2112.12731, section 3: the self-supervised adversarial loss).

    only: tokens are predicted in rows of this class alone, such as originals; None: in all
    loss: its first head predicts tokens, its second, such as `SequenceClassifier(classes, at="last")`, the class"""

    classes: int = 2
    only: int | None = None
    loss: JointLoss = JointLoss((("lm", 0.5), ("label", 1.0)))

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        check_joint(self, self.loss, "tokens, and the label of a row")
        if self.only is not None and not 0 <= self.only < self.classes:
            raise UserError(f"only={self.only} is no class: give 0 to {self.classes - 1}, or None for all")

    @property
    def heads(self) -> tuple[str, str]:
        (tokens, _), (label, _) = self.loss.heads
        return tokens, label

    def needs(self) -> Needs:
        tokens, label = self.heads
        wanted = ((tokens, TOKENS), (label, ROW_LABELS))
        return Needs(heads=wanted, channels=("label",), alone=True, classes=self.classes)

    def examples(self, tokenizer: Any = None) -> NextTokensLabelled:
        return NextTokensLabelled(self.heads, self.only)


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise UserError(f"classes={classes}: give 2 or more")


def _classified(scores: Array, batch: Batch, classes: int, loss: TokenLoss) -> HeadLoss:
    """Cross-entropy and the metrics of classes; scores [..., classes], or [..., 1], that of class 1 against 0."""
    targets, weights = batch["targets"], batch["weights"].astype(jnp.float32)
    found = label_loss(scores, targets, weights, loss.terms())
    chosen = (scores[..., 0] > 0).astype(jnp.int32) if scores.shape[-1] == 1 else scores.argmax(-1)

    def count(where: Array, of: Array) -> Array:
        return jnp.zeros(classes, jnp.float32).at[of].add(where)

    labelled, predicted = count(weights, targets), count(weights, chosen)
    hits = count(weights * (chosen == targets), targets)
    scored: Metrics = {
        "macro_f1": F1(hits, labelled, predicted),
        "matthews": Matthews(hits.sum(), labelled, predicted),
        **({"f1": F1(hits[1], labelled[1], predicted[1])} if classes == 2 else {}),
    }
    return found._replace(metrics=found.metrics | scored)
