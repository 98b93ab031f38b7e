"""A law whose terms of size and of data are not simply added."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .chinchilla import Chinchilla
from .law import POSITIVE, Array, Bounds, Domain, Frontier, Value


@dataclass(frozen=True)
class Coupled(Frontier):
    """L(N, D) = E + (A / N^alpha + B / D^beta)^k, Videau et al. 2026 (arXiv 2608.07222): Chinchilla's law is k = 1, and
    with k < 1, as they find it, more data help a small model less. A split of compute is best where the sum in the
    brackets is least, so the frontier is Chinchilla's, of the same A, B, alpha and beta."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value
    k: Value

    formula: ClassVar[str] = "L(N, D) = E + (A / N^alpha + B / D^beta)^k"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        **dict.fromkeys(("alpha", "beta"), Domain(positive=True, low=0.1, high=3.0)),
        "k": Domain(positive=True, low=0.2, high=1.5),
    }
    linear: ClassVar[tuple[str, ...]] = ("E",)

    def predict(self, N: Any, D: Any) -> Any:
        return self.E + (self.A / N**self.alpha + self.B / D**self.beta) ** self.k

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> dict[str, Array]:
        """Either term alone, at the median run, between 2 % of the median loss and all of it."""
        drawn = super().draw(rng, count, target, *inputs)
        a, b = (np.median(target) * np.exp(rng.uniform(-4, 0, (2, count)))) ** (1 / drawn["k"])
        N, D = map(np.median, inputs)
        return drawn | {"A": a * N ** drawn["alpha"], "B": b * D ** drawn["beta"]}

    @property
    def chinchilla(self) -> Chinchilla:
        """The sum in the brackets."""
        return Chinchilla(self.E, self.A, self.B, self.alpha, self.beta)

    @property
    def exponents(self) -> tuple[Array, Array]:
        return self.chinchilla.exponents

    def optimal(self, C: Any) -> tuple[Array, Array]:
        return self.chinchilla.optimal(C)

    @property
    def sound(self) -> Any:
        return self.chinchilla.sound
