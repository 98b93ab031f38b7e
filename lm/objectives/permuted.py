"""Permutation language modelling (XLNet, Yang et al. 2019, arXiv 1906.08237): some tokens of a row are predicted one
after another in a random order, each from those that are given and those that came before it in that order."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.core.component import component, components
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.masks import Permuted
from lm.model.transformer import Batch, Model
from lm.objectives.causal import Example, Loss, TokenLoss, positions_in


@component
class Permutation:
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

    def example(self, row: Example, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [length + 1]}, whose last token is left out, -> tokens, segments, positions,
        order [length + asked]: the row and behind it a query for each token to predict; targets, weights [asked], and
        of one with bytes those of each target."""
        tokens, segments = row["tokens"][:-1], row["segments"][:-1]
        asked = max(1, round(self.share * len(tokens)))
        real = np.flatnonzero(segments > 0)
        at = rng.permutation(self._spans(real, min(asked, len(real)), rng))
        order = np.zeros(len(tokens), np.int32)
        order[at] = np.arange(1, len(at) + 1)
        short = asked - len(at)
        at = np.pad(at, (0, short))  # queries of weight 0, as rows have one shape

        def both(values: np.ndarray, queries: np.ndarray) -> np.ndarray:
            return np.concatenate([values, queries]).astype(np.int32)

        positions = positions_in(segments)
        return {
            "tokens": both(tokens, np.zeros(asked)),
            "segments": both(segments, segments[at]),
            "positions": both(positions, positions[at]),
            "order": both(order, ~order[at]),
            "targets": tokens[at].astype(np.int32),
            "weights": (np.arange(asked) < asked - short).astype(np.float32),
            **({"bytes": row["bytes"][at]} if "bytes" in row else {}),
        }

    def _spans(self, real: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """`wanted` of the places `real`, in spans that begin anywhere; the last one drawn is cut to fit."""
        chosen = np.zeros(len(real), bool)
        while (missing := wanted - int(chosen.sum())) > 0:
            first = int(rng.choice(np.flatnonzero(~chosen)))
            span = np.arange(first, min(first + int(rng.integers(1, self.longest + 1)), len(real)))
            chosen[span[~chosen[span]][:missing]] = True
        return real[chosen]

    def __call__(self, model: Model, params: Tree, batch: Batch, ctx: Ctx, dtype: Any = jnp.float32) -> Loss:
        if not any(isinstance(part, Permuted) for part in components(model)):
            raise UserError("this model has no order of prediction: take one with a Permuted mask, or NextToken")
        return self.loss(model, params, batch, ctx, dtype)
