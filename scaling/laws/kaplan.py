"""Laws of Kaplan et al. 2020 (arXiv 2001.08361), and their published constants."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .law import FLOPS_PER_PARAM_TOKEN, POSITIVE, Array, Bounds, Frontier, Value, middle


@dataclass(frozen=True)
class Kaplan(Frontier):
    """L(N, D) = [(Nc / N)^(aN / aD) + Dc / D]^aD, Kaplan et al. 2020 (arXiv 2001.08361), equation 1.5: the loss where
    training ends before it overfits, N without embeddings. No loss remains that model and data cannot remove."""

    Nc: Value
    Dc: Value
    aN: Value
    aD: Value

    formula: ClassVar[str] = "L(N, D) = [(Nc / N)^(aN / aD) + Dc / D]^aD"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = dict.fromkeys(("Nc", "Dc", "aN", "aD"), POSITIVE)

    def predict(self, N: Any, D: Any) -> Any:
        return ((self.Nc / N) ** (self.aN / self.aD) + self.Dc / D) ** self.aD

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        """Without the other each term makes, at the middle run, between 2 % of the least loss and all of it."""
        N, D = inputs
        by_size, by_data = target.min() * np.exp(rng.uniform(-4, 0, (count, 2))).T
        aN, aD = rng.uniform(0.03, 0.8, (count, 2)).T
        return cls(middle(N) * by_size ** (1 / aN), middle(D) * by_data ** (1 / aD), aN, aD)

    @property
    def exponents(self) -> tuple[Array, Array]:
        """(1, r) / (1 + r) with r = aN / aD."""
        r = np.asarray(self.aN) / self.aD
        return 1 / (1 + r), r / (1 + r)

    def optimal(self, C: Any) -> tuple[Array, Array]:
        """Where the bracket is least: N^(1 + r) = r Nc^r C / (6 Dc)."""
        r, nd = np.asarray(self.aN) / self.aD, np.asarray(C, np.float64) / FLOPS_PER_PARAM_TOKEN
        n = (r * self.Nc**r * nd / self.Dc) ** (1 / (1 + r))
        return n, nd / n


KAPLAN = Kaplan(Nc=6.4e13, Dc=1.8e13, aN=0.076, aD=0.103)
"""Kaplan et al. 2020, table 2, of WebText2's tokens; no intervals were published."""
