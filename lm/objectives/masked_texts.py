"""What objectives share that hide tokens of a row of several texts, and have a head that tells something of these."""

from typing import TYPE_CHECKING

from lm.model.heads.protocol import ROW_LABELS, TOKENS
from lm.objectives.examples.texts import JoinedTexts
from lm.objectives.joint import JointLoss, check_joint
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import Needs
from lm.objectives.token_loss import TokenObjective
from lm.text.special import around_texts

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


class MaskedTexts(TokenObjective):
    """Base: rows `[CLS] A [SEP] B [SEP] ..`, in which some tokens are hidden, and which have a label.

    Knobs that all have:
    tokens: what is hidden, and how; its own loss is not used
    loss: its first head predicts tokens; its second, the label"""

    tokens: MaskedTokens
    loss: JointLoss

    def check(self, label: str) -> None:
        """Raise `UserError` unless the loss has a head for tokens and one for `label`, as an error calls it."""
        check_joint(self, self.loss, f"tokens, and {label}")

    def needs_of(self, *channels: str, classes: int, partners: int, types: bool = True) -> Needs:
        """What rows of these channels need."""
        (tokens, _), (label, _) = self.loss.heads
        own = self.tokens.needs()
        return own._replace(
            heads=((tokens, TOKENS), (label, ROW_LABELS)),
            rows=("types",) * types,
            channels=(*channels, *own.channels),
            partners=partners,
            classes=classes,
        )

    def joined(self, tokenizer: "Tokenizer | None") -> JoinedTexts:
        """How rows are made of texts."""
        first, separator = (0, 0) if tokenizer is None else around_texts(tokenizer)
        (tokens, _), (label, _) = self.loss.heads
        return JoinedTexts(self.tokens.examples(tokenizer), first, separator, (tokens, label))
