"""Laws of a task's error given the loss: what a benchmark will say of a model whose loss is predicted."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from .law import ANY, POSITIVE, Array, Bounds, Law, Value


@dataclass(frozen=True)
class ErrorOfLoss(Law):
    """err(L) = eps - k exp(-gamma L), Gadre et al. 2024 (arXiv 2403.08540), equation 5: the mean top-1 error over many
    tasks. `eps` is that of guessing, to which the loss of a small model leads; single tasks are noisier by far."""

    eps: Value
    k: Value
    gamma: Value

    formula: ClassVar[str] = "err(L) = eps - k exp(-gamma L)"
    reads: ClassVar[tuple[str, ...]] = ("loss",)
    bounds: ClassVar[Bounds] = {"eps": POSITIVE, "k": POSITIVE, "gamma": POSITIVE}
    linear: ClassVar[tuple[str, ...]] = ("eps", "k")
    target: ClassVar[str] = "error"
    residual: ClassVar[Literal["log", "linear"]] = "linear"
    delta: ClassVar[float] = np.inf

    def predict(self, loss: Any) -> Any:
        return self.eps - self.k * np.e ** (-self.gamma * loss)

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        """Through the median run, with an error of guessing between the largest error and half as much again."""
        loss = np.median(inputs[0])
        gamma = np.exp(rng.uniform(np.log(0.2), np.log(10), count)) / loss
        eps = target.max() * rng.uniform(1.0, 1.5, count)
        return cls(eps, (eps - np.median(target)) * np.exp(gamma * loss), gamma)


@dataclass(frozen=True)
class Sigmoid(Law):
    """err(L) = high - (high - low) / (1 + exp(k (L - middle))): the error of one task falls from that of guessing to
    what no model removes, about a loss `middle` (Llama 3, arXiv 2407.21783, section 3.2.1, which reads the loss of the
    right answers and finds that by a power of C). Both ends must be among the runs, or be held fixed."""

    low: Value
    high: Value
    k: Value
    middle: Value

    formula: ClassVar[str] = "err(L) = high - (high - low) / (1 + exp(k (L - middle)))"
    reads: ClassVar[tuple[str, ...]] = ("loss",)
    bounds: ClassVar[Bounds] = {
        "low": ANY,
        "high": POSITIVE,
        "k": POSITIVE,
        "middle": POSITIVE,
    }
    linear: ClassVar[tuple[str, ...]] = ("low", "high")
    target: ClassVar[str] = "error"
    residual: ClassVar[Literal["log", "linear"]] = "linear"
    delta: ClassVar[float] = np.inf

    def predict(self, loss: Any) -> Any:
        solved = 1 / (1 + np.e ** (self.k * (loss - self.middle)))
        return self.high * (1 - solved) + self.low * solved

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> dict[str, Array]:
        """A middle among the runs' losses, and a fall within 1/20 to twice their spread."""
        loss = inputs[0]
        k = np.exp(rng.uniform(np.log(0.5), np.log(20), count)) / np.ptp(loss)
        own = {"k": k, "middle": rng.uniform(loss.min(), loss.max(), count)}
        return super().draw(rng, count, target, *inputs) | own
