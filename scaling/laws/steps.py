"""Laws of steps and batches: how far a model gets in so many updates, and what large batches waste."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .law import ANY, POSITIVE, Array, Bounds, Domain, Law, Value, middle


@dataclass(frozen=True)
class Steps(Law):
    """L(N, S) = (Nc / N)^aN + (Sc / S)^aS, Kaplan et al. 2020 (arXiv 2001.08361), equation 1.6: the learning curve of a
    model, S the steps that it takes at batches far above the critical one (`critical_steps`)."""

    Nc: Value
    aN: Value
    Sc: Value
    aS: Value

    formula: ClassVar[str] = "L(N, S) = (Nc / N)^aN + (Sc / S)^aS"
    reads: ClassVar[tuple[str, ...]] = ("params", "steps")
    bounds: ClassVar[Bounds] = {
        "Nc": POSITIVE,
        "aN": Domain(positive=True, low=0.03, high=0.8),
        "Sc": POSITIVE,
        "aS": Domain(positive=True, low=0.1, high=1.5),
    }

    def predict(self, N: Any, S: Any) -> Any:
        return (self.Nc / N) ** self.aN + (self.Sc / S) ** self.aS

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        """Each term, at the middle run, between 2 % of the least loss and all of it."""
        by_size, by_steps = target.min() * np.exp(rng.uniform(-4, 0, (count, 2))).T
        aN, aS = (cls.bounds[name].draw(rng, count) for name in ("aN", "aS"))
        N, S = map(middle, inputs)
        return cls(N * by_size ** (1 / aN), aN, S * by_steps ** (1 / aS), aS)


@dataclass(frozen=True)
class CriticalBatch(Law):
    """B_crit(L) = B / L^(1 / aB), Kaplan et al. 2020, equation 1.4: the batch in tokens above which a loss costs more
    compute, and below it more steps (McCandlish et al. 2018, arXiv 1812.06162)."""

    B: Value
    aB: Value

    formula: ClassVar[str] = "B_crit(L) = B / L^(1 / aB)"
    reads: ClassVar[tuple[str, ...]] = ("loss",)
    bounds: ClassVar[Bounds] = {"B": POSITIVE, "aB": Domain(positive=True, low=0.05, high=1.0)}
    linear: ClassVar[tuple[str, ...]] = ("B",)
    target: ClassVar[str] = "critical_batch"
    delta: ClassVar[float] = np.inf

    def predict(self, loss: Any) -> Any:
        return self.B / loss ** (1 / self.aB)


@dataclass(frozen=True)
class BatchAware(Law):
    """L(N, D, b) = E + A / N^alpha + B / (D / (1 + b / critical))^beta: Chinchilla's law, of which a batch of b tokens
    wastes the share of data that McCandlish et al. 2018 (arXiv 1812.06162, equation 2.11) give, b / critical more than
    the least. `critical`, in tokens, is one number here: fit runs of similar losses, or it is a mean over them."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value
    critical: Value

    formula: ClassVar[str] = "L(N, D, b) = E + A / N^alpha + B / (D / (1 + b / critical))^beta"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        **dict.fromkeys(("alpha", "beta"), ANY),
        "critical": POSITIVE,
    }
    linear: ClassVar[tuple[str, ...]] = ("E", "A", "B")

    def predict(self, N: Any, D: Any, batch: Any) -> Any:
        return self.E + self.A / N**self.alpha + self.B * ((1 + batch / self.critical) / D) ** self.beta

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> dict[str, Array]:
        """A critical batch within a factor of 20 of the middle one."""
        critical = middle(inputs[2]) * np.exp(rng.uniform(-3, 3, count))
        return super().draw(rng, count, target, *inputs) | {"critical": critical}


def critical_steps(steps: Any, batch: Any, critical: Any) -> Any:
    """S_min = S / (1 + B_crit / B): the steps that a run would have taken at a very large batch (Kaplan et al. 2020,
    equation 5.4)."""
    return steps / (1 + critical / batch)


KAPLAN_STEPS = Steps(Nc=6.5e13, aN=0.077, Sc=2.1e3, aS=0.76)
"""Kaplan et al. 2020, table 3."""

KAPLAN_BATCH = CriticalBatch(B=2e8, aB=0.21)
"""Equation 1.4, of WebText2's tokens."""
