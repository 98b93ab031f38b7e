"""Next-token prediction, of whole documents or behind a prefix."""

from typing import Any

from lm.core.component import component
from lm.objectives.examples.next_token import NextTokens, TokensAfterPrefix
from lm.objectives.objective import Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective


@component
class NextToken(TokenObjective):
    """Predict each token from those before it (GPT). With packed documents, a document's first token is not
    predicted.

    targets_only: of pairs and chats, the loss is on targets and assistants' turns; what comes before is only read"""

    loss: TokenLoss = TokenLoss()
    targets_only: bool = False

    def needs(self) -> Needs:
        return Needs(carries=True, channels=("target",) if self.targets_only else ())

    def examples(self, tokenizer: Any = None) -> NextTokens:
        return NextTokens(self.targets_only)

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring(documents=True)


@component
class PrefixNextToken(TokenObjective):
    """Predict the tokens of a document behind a prefix of it, which is cut anywhere and all of which sees itself and is
    seen (prefix language modelling: Raffel et al. 2020, arXiv 1910.10683). For a decoder whose attention has the
    `Prefix` mask; packed documents are kept apart, each with a prefix of its own."""

    loss: TokenLoss = TokenLoss()

    def needs(self) -> Needs:
        return Needs(rows=("prefix",))

    def examples(self, tokenizer: Any = None) -> TokensAfterPrefix:
        return TokensAfterPrefix()

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring(documents=True)
