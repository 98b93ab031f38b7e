"""Hidden tokens in pairs of texts, and whether these follow each other (BERT, ALBERT)."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from lm.core.component import component
from lm.core.ranges import Share
from lm.model.heads.protocol import ROW_LABELS, TOKENS
from lm.objectives.examples.sentence_pairs import SentencePairs
from lm.objectives.joint import JointLoss, check_joint
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import Needs
from lm.objectives.token_loss import TokenObjective
from lm.text.special import around_texts

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MaskedPairs(TokenObjective):
    """Rows `[CLS] A [SEP] B [SEP]` of token types 0 and 1, in which some tokens are hidden; half of the pairs do not
    follow each other in the text, and a head tells which.

    Texts are runs of whole sentences of one document, which the data marks (`config.data.records.sentences`), cut where
    they are too long. A row has a pair from one of the documents in it, drawn by length. One of a single sentence makes
    no pair; its tokens are hidden all the same.

    tokens: what is hidden, and how; its own loss is not used
    relation: next: B is from another document, drawn at random (next sentence: Devlin et al. 2019, arXiv 1810.04805);
        order: B and A change places (sentence order: ALBERT, Lan et al. 2020, arXiv 1909.11942)
    short: share of pairs of a random, shorter length
    loss: its first head predicts tokens; its second, 1 for pairs that do not follow each other, 0 for others"""

    tokens: MaskedTokens = MaskedTokens()
    relation: Literal["next", "order"] = "next"
    short: Share = 0.1
    loss: JointLoss = JointLoss((("mlm", 1.0), ("nsp", 1.0)))

    def __post_init__(self) -> None:
        check_joint(self, self.loss, "tokens, and whether texts follow each other")

    def needs(self) -> Needs:
        (mlm, _), (pair, _) = self.loss.heads
        own = self.tokens.needs()
        return own._replace(
            heads=((mlm, TOKENS), (pair, ROW_LABELS)),
            rows=("types",),
            channels=("sentence", *own.channels),
            partners=int(self.relation == "next"),
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> SentencePairs:
        first, separator = (0, 0) if tokenizer is None else around_texts(tokenizer)
        hidden = self.tokens.examples(tokenizer)
        if tokenizer is not None:
            hidden = dataclasses.replace(hidden, kept=(*hidden.kept, first, separator))
        (mlm, _), (pair, _) = self.loss.heads
        return SentencePairs(hidden, first, separator, self.relation == "order", self.short, (mlm, pair))
