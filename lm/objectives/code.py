"""Code from its description (PanGu-Coder, Christopoulou et al. 2022, arXiv 2207.11280: its second stage)."""

from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.objectives.examples.code import CodeTokens
from lm.objectives.objective import Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective
from lm.text.special import kept_of, mask_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class CodeFromText(TokenObjective):
    """Predict the code of pairs (`config.data.records.type=Pairs`) token by token from a description some of whose
    tokens are corrupted, for a decoder. The first stage is `NextToken`; so is this one without corruption, with its
    `targets_only` (their CODE-CLM).

    corrupted: share of the description's tokens, each drawn by itself
    masked: share of these that are masked: by the vocabulary's mask, or else its first sentinel; others are random
    recovered: whether the corrupted tokens are predicted too, each at its own position (causal and masked language
        modelling combined); False: they are noise only (CORRUPT-CODE-CLM of their later work, arXiv 2402.05783)
    prefix: whether the description sees itself from both sides; needs a `Prefix` mask"""

    corrupted: Share = 0.15
    masked: Share = 0.8
    recovered: bool = True
    prefix: bool = False
    loss: TokenLoss = TokenLoss()

    def needs(self) -> Needs:
        return Needs(rows=("prefix",) * self.prefix, channels=("target",))

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring(documents=not self.prefix)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> CodeTokens:
        knobs = (self.corrupted, self.masked, self.recovered, self.prefix)
        if tokenizer is None:  # shapes alone are asked for
            return CodeTokens(*knobs, mask=0, vocab=1)
        mask = mask_of(tokenizer)
        if mask is None and not tokenizer.sentinels:
            raise UserError("the tokenizer has neither a mask nor sentinels: add one with config.data.reserved=[MASK]")
        mask = tokenizer.sentinel(0) if mask is None else mask
        return CodeTokens(*knobs, mask, tokenizer.vocab_size, kept_of(tokenizer))
