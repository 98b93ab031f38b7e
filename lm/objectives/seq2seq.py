"""Writing one text from another: translation, summaries, and any task that is told as text (T5, Raffel et al. 2020,
arXiv 1910.10683)."""

from typing import Any

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.pairs import PairedRows
from lm.objectives.objective import Needs
from lm.objectives.token_loss import TokenLoss, TokenObjective


@component
class Seq2Seq(TokenObjective):
    """Predict the targets of pairs (`config.data.records.type=Pairs`) from their inputs, which the encoder reads.

    Several pairs share a row, if the packing is best-fit: none sees another, in encoder, decoder or between them.

    inputs, targets: tokens of a row of the encoder and of the decoder; data.length bounds both together"""

    inputs: int = 256
    targets: int = 256
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if min(self.inputs, self.targets) < 1:
            raise UserError(f"inputs={self.inputs} and targets={self.targets} are lengths: give 1 or more")

    def needs(self) -> Needs:
        return Needs(rows=("encoder/tokens",), channels=("part", "target"), sides=(self.inputs, self.targets))

    def examples(self, tokenizer: Any = None) -> PairedRows:
        return PairedRows(self.inputs, self.targets)
