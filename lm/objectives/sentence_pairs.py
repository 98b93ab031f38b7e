"""Hidden tokens in pairs of texts, and how these follow each other (BERT, ALBERT, ERNIE 2.0)."""

from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.ranges import Share
from lm.objectives.examples.sentence_pairs import Relation, SentencePairs
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedTokens
from lm.objectives.masked_texts import MaskedTexts
from lm.objectives.objective import Needs

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MaskedPairs(MaskedTexts):
    """Rows `[CLS] A [SEP] B [SEP]` of token types 0 and 1, in which some tokens are hidden; half of the pairs do not
    follow each other in the text, and a head tells which.

    Texts are runs of whole sentences of one document, which the data marks (`config.data.records.sentences`), cut where
    they are too long. A row has a pair from one of the documents in it, drawn by length. One of a single sentence makes
    no pair; its tokens are hidden all the same.

    tokens: what is hidden, and how; its own loss is not used
    relation: next: B is from another document, drawn at random (next sentence: Devlin et al. 2019, arXiv 1810.04805);
        order: B and A change places (sentence order: ALBERT, Lan et al. 2020, arXiv 1909.11942);
        distance: a third of the pairs follow each other, a third are apart in one document, by a sentence or more, and
        a third are of two documents (sentence distance: ERNIE 2.0, Sun et al. 2019, arXiv 1907.12412, which does not
        say how many are of each kind); where a document has two sentences only, they follow each other
    short: share of pairs of a random, shorter length
    loss: its first head predicts tokens; its second, 1 for pairs that do not follow each other, 0 for others; of
        distance, 1 for those in one document, and 2 for those of two"""

    tokens: MaskedTokens = MaskedTokens()
    relation: Relation = "next"
    short: Share = 0.1
    loss: JointLoss = JointLoss((("mlm", 1.0), ("nsp", 1.0)))

    def __post_init__(self) -> None:
        self.check("whether texts follow each other")

    def needs(self) -> Needs:
        distance = self.relation == "distance"
        return self.needs_of("sentence", classes=2 + distance, partners=int(self.relation != "order"))

    def examples(self, tokenizer: "Tokenizer | None" = None) -> SentencePairs:
        return SentencePairs(self.joined(tokenizer), self.relation, self.short)
