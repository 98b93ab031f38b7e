"""Hidden tokens in texts whose segments have changed places, and in which order they stand (ERNIE 2.0)."""

from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.reordering import ReorderedSegments, classes_up_to
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedTokens
from lm.objectives.masked_texts import MaskedTexts
from lm.objectives.objective import Needs

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class SentenceReordering(MaskedTexts):
    """Rows `[CLS] B [SEP] A [SEP] ..` of token type 0: a text is cut between sentences into one to some segments, these
    are put into any order, some tokens are hidden, and a head tells the order (ERNIE 2.0, Sun et al. 2019, arXiv
    1907.12412, section 4.2.2). With at most 3 segments there are 1 + 2 + 6 orders, which are the head's classes.

    A row has a run of whole sentences of one of the documents in it, drawn by length; of a single sentence tokens are
    hidden and nothing is told. Each number of segments comes as often, but that there are no more than sentences.

    tokens: what is hidden, and how; its own loss is not used
    segments: into how many a text is cut at most, which the paper leaves open
    loss: its first head predicts tokens; its second, the order"""

    tokens: MaskedTokens = MaskedTokens()
    segments: int = 3
    loss: JointLoss = JointLoss((("mlm", 1.0), ("reordering", 1.0)))

    def __post_init__(self) -> None:
        self.check("the order of segments")
        if not 2 <= self.segments <= 7:
            raise UserError(
                f"segments={self.segments} to put in order: give 2 to 7, which have {classes_up_to(7)} orders"
            )

    def needs(self) -> Needs:
        return self.needs_of("sentence", classes=classes_up_to(self.segments), partners=0, types=False)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> ReorderedSegments:
        return ReorderedSegments(self.joined(tokenizer), self.segments)
