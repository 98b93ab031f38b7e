"""Laws of one quantity, everything else being plentiful or at its best: L(N), L(D), L(C)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .law import ANY, POSITIVE, Array, Bounds, Domain, Law, Value, middle

PF_DAY = 8.64e19  # FLOPs of a petaflop/s for a day, in which Kaplan et al. measure C


@dataclass(frozen=True)
class Power(Law):
    """L(x) = (scale / x)^exponent, which falls to nothing: Kaplan et al. 2020 (arXiv 2001.08361), equations 1.1 to 1.3.
    Over a few orders of magnitude it can stand for a law with a floor; far beyond them it promises too much."""

    scale: Value
    exponent: Value

    bounds: ClassVar[Bounds] = {"scale": POSITIVE, "exponent": Domain(positive=True, low=0.02, high=1.0)}

    def predict(self, x: Any) -> Any:
        return (self.scale / x) ** self.exponent

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        """Through a point within a factor of two of the middle run."""
        exponent = cls.bounds["exponent"].draw(rng, count)
        through = middle(target) * np.exp(rng.uniform(-0.7, 0.7, count))
        return cls(middle(inputs[0]) * through ** (1 / exponent), exponent)


@dataclass(frozen=True)
class SizePower(Power):
    """L(N) of models trained to convergence on as much data as they can use."""

    formula: ClassVar[str] = "L(N) = (scale / N)^exponent"
    reads: ClassVar[tuple[str, ...]] = ("params",)


@dataclass(frozen=True)
class DataPower(Power):
    """L(D) of a model large enough for any of these data, stopped before it overfits."""

    formula: ClassVar[str] = "L(D) = (scale / D)^exponent"
    reads: ClassVar[tuple[str, ...]] = ("tokens",)


@dataclass(frozen=True)
class ComputePower(Power):
    """L(C) of the best run at each budget."""

    formula: ClassVar[str] = "L(C) = (scale / C)^exponent"
    reads: ClassVar[tuple[str, ...]] = ("flops",)


@dataclass(frozen=True)
class Floored(Law):
    """L(x) = E + k / x^gamma. Its floor is an extrapolation: quote E with its interval."""

    E: Value
    k: Value
    gamma: Value

    bounds: ClassVar[Bounds] = {"E": POSITIVE, "k": POSITIVE, "gamma": ANY}
    linear: ClassVar[tuple[str, ...]] = ("E", "k")

    def predict(self, x: Any) -> Any:
        return self.E + self.k / x**self.gamma


@dataclass(frozen=True)
class Size(Floored):
    """L(N) of models trained to convergence on as much data as they can use."""

    formula: ClassVar[str] = "L(N) = E + k / N^gamma"
    reads: ClassVar[tuple[str, ...]] = ("params",)


@dataclass(frozen=True)
class Data(Floored):
    """L(D) of one model trained on ever more data."""

    formula: ClassVar[str] = "L(D) = E + k / D^gamma"
    reads: ClassVar[tuple[str, ...]] = ("tokens",)


@dataclass(frozen=True)
class Compute(Floored):
    """L(C) of the best run at each budget. With a floor it extrapolates several times better than without one, and
    needs no split into N and D."""

    formula: ClassVar[str] = "L(C) = E + k / C^gamma"
    reads: ClassVar[tuple[str, ...]] = ("flops",)


KAPLAN_SIZE = SizePower(scale=8.8e13, exponent=0.076)
"""Kaplan et al. 2020, equation 1.1: parameters without embeddings, loss on WebText2."""

KAPLAN_DATA = DataPower(scale=5.4e13, exponent=0.095)
"""Equation 1.2."""

KAPLAN_COMPUTE = ComputePower(scale=3.1e8 * PF_DAY, exponent=0.050)
"""Equation 1.3, of the least compute: training at batches well below the critical one."""
