"""Next-token prediction."""

from typing import Any

from lm.core.component import component
from lm.objectives.examples.next_token import NextTokens
from lm.objectives.objective import Needs, Scoring
from lm.objectives.token_loss import TokenLoss, TokenObjective


@component
class NextToken(TokenObjective):
    """Predict each token from those before it (GPT). With packed documents, a document's first token is not
    predicted."""

    loss: TokenLoss = TokenLoss()

    def needs(self) -> Needs:
        return Needs(carries=True)

    def examples(self, tokenizer: Any = None) -> NextTokens:
        return NextTokens()

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring(documents=True)
