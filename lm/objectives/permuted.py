"""Permutation language modelling (XLNet, Yang et al. 2019, arXiv 1906.08237): some tokens of a row are predicted one
after another in a random order, each from those that are given and those that came before it in that order."""

from typing import Any

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.permuted import PermutedRows
from lm.objectives.objective import Needs
from lm.objectives.token_loss import TokenLoss, TokenObjective


@component
class Permutation(TokenObjective):
    """Predict `share` of a row's tokens, in spans of 1 to `longest` tokens, in an order in which each is equally likely
    (the paper's partial prediction, with K = 1 / share). The model needs a `Permuted` mask and a `blank` embedding.

    Documents packed into a row are kept apart, but share one order. A row with fewer real tokens than are to be
    predicted predicts as many as it has."""

    share: float = 1 / 6
    longest: int = 5
    loss: TokenLoss = TokenLoss()

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} of the tokens to predict: give more than 0 and at most 1")
        if self.longest < 1:
            raise UserError(f"longest={self.longest} span to predict: give 1 or more")

    def needs(self) -> Needs:
        return Needs(rows=("order",))

    def examples(self, tokenizer: Any = None) -> PermutedRows:
        return PermutedRows(self.share, self.longest)
