"""Next-token prediction, of whole documents or behind a prefix."""

from collections.abc import Iterator
from typing import Any

from lm.core.component import component, components
from lm.model.moe.routers import Router
from lm.model.transformer import Model
from lm.objectives.examples.next_token import NextTokens, TokensAfterPrefix
from lm.objectives.objective import Needs, Objective, Scoring
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


def seen_ahead(objective: Objective, model: Model) -> Iterator[str]:
    """Notes on a next-token objective whose model has routers that look at the tokens to predict."""
    ahead = {type(part).__name__ for part in components(model) if isinstance(part, Router) and part.ahead}
    if ahead and any(isinstance(part, NextToken) for part in components(objective)):
        yield (
            f"{', '.join(sorted(ahead))} looks at tokens that follow, which next-token prediction does not have when "
            "it writes: losses are too good, and the model cannot generate"
        )


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
