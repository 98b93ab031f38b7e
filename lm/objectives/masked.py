"""Masked language modelling (BERT, Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

import dataclasses
from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import CountOrNone
from lm.model.heads.protocol import SPANS, TOKENS
from lm.objectives.examples.hiding import GeometricSpans, Hiding, NGrams, SingleTokens
from lm.objectives.examples.masked import HiddenSpans, HiddenTokens
from lm.objectives.examples.similar import read_similar
from lm.objectives.joint import JointLoss, check_joint
from lm.objectives.objective import Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective
from lm.text.special import kept_of, mask_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MaskedTokens(TokenObjective):
    """Predict some tokens of each row from the rest. For models whose tokens see both sides.

    share: of the text's tokens to predict, but at least one, or what `hiding` takes as a whole
    masked: share of these replaced by the mask: the vocabulary's, or else its first sentinel
    random: share replaced by a random token; the rest are left as they are
    hiding: which tokens: any (SingleTokens), or those of WholeWords, GeometricSpans, GivenSpans, NGrams
    copies: of the rows, each with masks of its own, which epochs read in turn (static masking: RoBERTa, Liu et al.
        2019, arXiv 1907.11692, has ten); 0: other masks in every epoch (dynamic masking)
    predictions: the most tokens to predict of a row, whose logits alone are computed: as many as `share` of a full row
        makes a step faster (BERT: 20 of 128 tokens, 77 of 512); 0: no bound, and logits of all
    similar: file of similar words (`lm.objectives.examples.similar`), which stand in the place of masks, and where it
        has none random tokens (MacBERT); with `hiding` by NGrams"""

    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    loss: TokenLoss = TokenLoss()
    hiding: Hiding = SingleTokens()
    copies: CountOrNone = 0
    predictions: CountOrNone = 0
    similar: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} of the tokens to hide: give more than 0 and at most 1")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise UserError(f"masked={self.masked} and random={self.random} are shares: give at most 1 together")
        if min(self.copies, self.predictions) < 0:
            raise UserError(f"copies={self.copies} and predictions={self.predictions}: give 0 or more")
        if self.similar and not isinstance(self.hiding, NGrams):
            raise UserError(
                f"similar words stand in the place of whole words, but hiding is {type(self.hiding).__name__}: set "
                "config.objective.hiding.type=NGrams (of shares=[1.0] for words one by one)"
            )

    def needs(self) -> Needs:
        return Needs(both_sides=True, channels=self.hiding.channels, copies=self.copies)

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring(documents=True, mask=_hidden_by(tokenizer))

    def examples(self, tokenizer: "Tokenizer | None" = None) -> HiddenTokens:
        made = HiddenTokens(
            self.share, self.masked, self.random, 0, 1, hiding=self.hiding, predictions=self.predictions
        )
        if tokenizer is None:  # shapes alone are asked for
            return dataclasses.replace(made, hiding=SingleTokens())
        return dataclasses.replace(
            made,
            mask=0 if self.similar else _hidden_by(tokenizer),
            vocab=tokenizer.vocab_size,
            kept=kept_of(tokenizer),
            starts=tokenizer.word_starts() if self.hiding.words else None,
            similar=read_similar(self.similar, tokenizer.encode) if self.similar else None,
        )


@component
class MaskedSpans(TokenObjective):
    """Predict hidden spans twice: each token from its own state, and from those of the tokens beside its span
    (SpanBERT, Joshi et al. 2020, arXiv 1907.10529). The model has a head for either.

    tokens: what is hidden, and how; its own loss is not used
    loss: its first head predicts tokens, its second the tokens of spans"""

    tokens: MaskedTokens = MaskedTokens(hiding=GeometricSpans())
    loss: JointLoss = JointLoss((("mlm", 1.0), ("sbo", 1.0)))

    def __post_init__(self) -> None:
        if not isinstance(self.tokens.hiding, GeometricSpans):
            raise UserError(
                f"hiding {type(self.tokens.hiding).__name__} of MaskedSpans may leave no token between two spans: set "
                "config.objective.tokens.hiding.type=GeometricSpans"
            )
        check_joint(self, self.loss, "tokens, and tokens of spans")
        if self.tokens.predictions:
            raise UserError("MaskedSpans has targets at all positions: set config.objective.tokens.predictions=0")

    @property
    def heads(self) -> tuple[str, str]:
        (mlm, _), (sbo, _) = self.loss.heads
        return mlm, sbo

    def needs(self) -> Needs:
        mlm, sbo = self.heads
        return self.tokens.needs()._replace(
            heads=((mlm, TOKENS), (sbo, SPANS)), rows=("span_left", "span_right", "span_index")
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> HiddenSpans:
        return HiddenSpans(self.tokens.examples(tokenizer), self.heads)


def _hidden_by(tokenizer: "Tokenizer") -> int:
    """The token that stands for a hidden one."""
    mask = mask_of(tokenizer)
    if mask is None and not tokenizer.sentinels:
        raise UserError("the tokenizer has neither a mask nor sentinels: train one with config.data.reserved=[MASK]")
    return tokenizer.sentinel(0) if mask is None else mask
