"""Filling in the middle, by a model that writes from left to right (Bavarian et al. 2022, arXiv 2207.14255)."""

from typing import TYPE_CHECKING

from lm.core.component import component, components
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.objectives.examples.middle import MiddleIds, MovedMiddles
from lm.objectives.objective import Needs, Objective, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class FillInTheMiddle(TokenObjective):
    """Next-token prediction in documents of which some have their middle moved to the end: "<prefix> a <suffix> c
    <middle> b". All their tokens are predicted, as published.

    Each document of a packed row is cut by itself, at two of its tokens (the paper cuts between characters, and finds
    that this helps where a word is to be completed). It then is three tokens longer, so that the end of a full row is
    left out. A row of the corpus that begins or ends within a document has a part of it, which is treated as one.

    rate: of documents that are so cut (0.5 to 0.9 in the paper)
    suffix_first: share of these that have the suffix in front (SPM), where the others begin with the prefix (PSM)
    joined: SPM as "<prefix> <suffix> c <middle> a b", the variant that the paper trains together with PSM; if off,
        "<suffix> c <prefix> a <middle> b"
    ids: of the three tokens; None: the tokenizer's own, or else its last three sentinels"""

    rate: Share = 0.5
    suffix_first: Share = 0.5
    joined: bool = True
    ids: MiddleIds | None = None
    loss: TokenLoss = TokenLoss()

    def needs(self) -> Needs:
        return Needs()

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring(documents=True)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> MovedMiddles:
        knobs = (self.rate, self.suffix_first, self.joined)
        if tokenizer is None:  # shapes alone are asked for
            return MovedMiddles(*knobs, self.ids or MiddleIds(0, 0, 0), None, 1)
        return MovedMiddles(*knobs, self.ids or _ids(tokenizer), tokenizer.bos_id, tokenizer.eos_id)


def middle_ids(objective: Objective, tokenizer: "Tokenizer") -> MiddleIds | None:
    """The three tokens by which a model of that objective, or of a mixture with such a part, fills in middles; None: it
    has not learned to."""
    found = (part for part in components(objective) if isinstance(part, FillInTheMiddle))
    return next((part.ids or _ids(tokenizer) for part in found), None)


def _ids(tokenizer: "Tokenizer") -> MiddleIds:
    if (own := MiddleIds.of(tokenizer)) is not None:
        return own
    if tokenizer.sentinels < 3:
        raise UserError(
            "the tokenizer has no tokens for prefix, suffix and middle, nor three sentinels to stand for them: train "
            "one with config.data.reserved=[<fim_prefix>,<fim_suffix>,<fim_middle>], or give objective.ids"
        )
    return MiddleIds(*(tokenizer.sentinel(tokenizer.sentinels - 3 + i) for i in range(3)))
