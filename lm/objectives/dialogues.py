"""Hidden tokens in dialogues, and whether these are real (ERNIE)."""

from typing import TYPE_CHECKING

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.dialogues import DialogueTurns
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedTokens
from lm.objectives.masked_texts import MaskedTexts
from lm.objectives.objective import Needs

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MaskedDialogues(MaskedTexts):
    """Rows `[CLS] Q [SEP] R [SEP] Q [SEP]`: turns of a dialogue (`config.data.records.type=Dialogues`) in a row, of
    token type 0 where one asks and 1 where the other answers. Some tokens are hidden; in half of the rows one of the
    turns is replaced by one of another dialogue, drawn at random, and a head tells which (the dialogue language model
    of ERNIE, Sun et al. 2019, arXiv 1904.09223, section 3.3.2, which does not say how many are false).

    tokens: what is hidden, and how; its own loss is not used
    turns: of a row, or fewer where a dialogue has fewer; of a single one nothing is told
    loss: its first head predicts tokens; its second, 1 for false dialogues, 0 for real ones"""

    tokens: MaskedTokens = MaskedTokens()
    turns: int = 3
    loss: JointLoss = JointLoss((("mlm", 1.0), ("dialogue", 1.0)))

    def __post_init__(self) -> None:
        self.check("whether dialogues are real")
        if self.turns < 2:
            raise UserError(f"turns={self.turns} of a dialogue: give 2 or more, one of which may be false")

    def needs(self) -> Needs:
        return self.needs_of("part", "sentence", classes=2, partners=1)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> DialogueTurns:
        return DialogueTurns(self.joined(tokenizer), self.turns)
