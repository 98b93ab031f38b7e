"""Blank infilling: GLM (Du et al. 2022, arXiv 2103.10360), GLM-130B (Zeng et al. 2022, arXiv 2210.02414)."""

from typing import TYPE_CHECKING, Any, Self

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Count
from lm.objectives.examples.blanks import SHORT, BlankChoice, BlankedRows, BlankIds, Sentences
from lm.objectives.objective import Needs
from lm.objectives.token_loss import TokenLoss, TokenObjective

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class BlankInfilling(TokenObjective):
    """Spans of each text become blanks, and are written behind it (`lm.objectives.examples.blanks`). For decoders with
    a `Prefix` mask, which sees the text around the blanks from both sides.

    blanks: (rate, how spans are chosen), rates relative: a row is under one of them. Short spans are marked by [MASK],
        long ones by [gMASK], sentences by [sMASK]. Records with a channel `target` have that for their blank
    most: blanks of a row, of which there is room for two tokens each; texts beyond have none, and predict nothing.
        None: twice as many as are expected, 8 at least
    running: text positions of long spans go on from the text, for models without positions within a span (GLM-130B);
        else they are all that of the blank
    ids: special tokens; None: the tokenizer's"""

    blanks: tuple[BlankChoice, ...] = SHORT
    most: Count | None = None
    running: bool = False
    ids: BlankIds | None = None
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if not self.blanks or min(rate for rate, _ in self.blanks) <= 0:
            raise UserError("blanks need at least one choice of spans, each with a rate above 0")

    @classmethod
    def filling(cls, tokens: int, blanks: tuple[BlankChoice, ...] = SHORT, **knobs: Any) -> tuple[Self, int]:
        """The objective whose model reads so many tokens, its context, and the length of the rows that fit into them:

            objective, config.data.length = BlankInfilling.filling(512)  # of 423 tokens

        Without it the model reads more tokens than `config.data.length`: two for each blank that there is room for."""
        made = cls(blanks, **knobs)
        room = made.examples().room
        lengths = [n for n in range(1, tokens) if n + 1 + 2 * room(n + 1) <= tokens]
        if not lengths:
            raise UserError(f"{tokens} tokens have no room for blanks: give {2 * room(1) + 2} or more")
        return made, max(lengths)

    def needs(self) -> Needs:
        sentences = any(isinstance(choose, Sentences) for _, choose in self.blanks)
        return Needs(rows=("prefix",), channels=("sentence",) * sentences)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> BlankedRows:
        marks = tuple(dict.fromkeys(choose.mark for _, choose in self.blanks))
        if self.ids is not None:
            ids = self.ids
        elif tokenizer is None:  # shapes alone are asked for
            ids = BlankIds(0, 0, 0, 0, 0)
        else:
            ids = BlankIds.of(tokenizer, marks)
        return BlankedRows(self.blanks, ids, self.most, self.running)
