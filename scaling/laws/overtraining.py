"""The law of over-training: Gadre et al. 2024 (arXiv 2403.08540)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .chinchilla import Chinchilla
from .law import FLOPS_PER_PARAM_TOKEN, POSITIVE, Array, Bounds, Domain, Frontier, Value


@dataclass(frozen=True)
class OverTraining(Frontier):
    """L(C, M) = E + (A M^eta + B M^-eta) C^-eta with M = D / N tokens a parameter and C = 6 N D (equation 4): at any M
    the same power of C, which is what they saw. It is Chinchilla's law with alpha = beta = 2 eta (`chinchilla`), so M
    is best at (B / A)^(1 / (2 eta)), whatever C. Four constants come from five small runs; the errors are of the loss
    itself, by least squares, as theirs."""

    E: Value
    A: Value
    B: Value
    eta: Value

    formula: ClassVar[str] = "L(C, M) = E + (A M^eta + B / M^eta) / C^eta, C = 6 N D, M = D / N"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        "eta": Domain(positive=True, low=0.03, high=0.8),
    }
    linear: ClassVar[tuple[str, ...]] = ("E", "A", "B")
    residual: ClassVar = "linear"
    delta: ClassVar[float] = np.inf

    def predict(self, N: Any, D: Any) -> Any:
        C, M = FLOPS_PER_PARAM_TOKEN * N * D, D / N
        return self.E + self.A * (M / C) ** self.eta + self.B / (M * C) ** self.eta

    @property
    def chinchilla(self) -> Chinchilla:
        """M / C = 1 / (6 N^2) and M C = 6 D^2."""
        six = FLOPS_PER_PARAM_TOKEN**-self.eta
        return Chinchilla(self.E, self.A * six, self.B * six, 2 * self.eta, 2 * self.eta)

    @property
    def exponents(self) -> tuple[Array, Array]:
        return self.chinchilla.exponents

    def optimal(self, C: Any) -> tuple[Array, Array]:
        return self.chinchilla.optimal(C)

    @property
    def sound(self) -> Any:
        return self.chinchilla.sound


GADRE_C4 = OverTraining(E=1.508, A=141.3, B=189.5, eta=0.1212)
"""Gadre et al. 2024, loss on C4's validation set of models trained on C4; of RedPajama and of RefinedWeb:"""
GADRE_REDPAJAMA = OverTraining(E=1.837, A=212.2, B=366.7, eta=0.1364)
GADRE_REFINEDWEB = OverTraining(E=1.734, A=157.1, B=246.2, eta=0.1272)
