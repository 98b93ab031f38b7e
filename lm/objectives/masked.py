"""Masked language modelling (BERT, Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.masked import HiddenTokens
from lm.objectives.objective import Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective
from lm.text.special import mask_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MaskedTokens(TokenObjective):
    """Predict some tokens of each row from the rest, others in every epoch (dynamic masking: RoBERTa, Liu et al. 2019,
    arXiv 1907.11692). For models whose tokens see both sides.

    share: of the text's tokens to predict, at least one
    masked: share of these replaced by the mask: the vocabulary's, or else its first sentinel
    random: share replaced by a random token; the rest are left as they are"""

    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} of the tokens to hide: give more than 0 and at most 1")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise UserError(f"masked={self.masked} and random={self.random} are shares: give at most 1 together")

    def needs(self) -> Needs:
        return Needs(both_sides=True)

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring(documents=True, mask=_hidden_by(tokenizer))

    def examples(self, tokenizer: "Tokenizer | None" = None) -> HiddenTokens:
        if tokenizer is None:  # shapes alone are asked for
            return HiddenTokens(self.share, self.masked, self.random, mask=0, vocab=1)
        special = (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id)
        kept = tuple(i for i in special if i is not None)
        return HiddenTokens(self.share, self.masked, self.random, _hidden_by(tokenizer), tokenizer.vocab_size, kept)


def _hidden_by(tokenizer: "Tokenizer") -> int:
    """The token that stands for a hidden one."""
    mask = mask_of(tokenizer)
    if mask is None and not tokenizer.sentinels:
        raise UserError("the tokenizer has neither a mask nor sentinels: train one with config.data.reserved=[MASK]")
    return tokenizer.sentinel(0) if mask is None else mask
