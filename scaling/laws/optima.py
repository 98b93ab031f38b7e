"""Laws of what is best at a scale: learning rates, batches, sizes and tokens as products of powers.

Each is fitted, in logarithms, to one best value for each cell of a grid (`scaling.tuning` finds those), and predicts
that value rather than a loss. Learning rates are peaks; batches are in tokens."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .law import POSITIVE, Bounds, Domain, Law, Value

SLOPE = Domain(positive=False, low=-1.0, high=1.0)


@dataclass(frozen=True)
class Monomial(Law):
    """k x^a."""

    k: Value
    a: Value

    bounds: ClassVar[Bounds] = {"k": POSITIVE, "a": SLOPE}
    linear: ClassVar[tuple[str, ...]] = ("k",)
    delta: ClassVar[float] = np.inf

    def predict(self, x: Any) -> Any:
        return self.k * x**self.a


@dataclass(frozen=True)
class RateOfCompute(Monomial):
    """The best learning rate at C (DeepSeek LLM 2024, arXiv 2401.02954)."""

    formula: ClassVar[str] = "lr(C) = k C^a"
    reads: ClassVar[tuple[str, ...]] = ("flops",)
    target: ClassVar[str] = "learning_rate"


@dataclass(frozen=True)
class RateOfSize(Monomial):
    """The best learning rate of a size, at its compute-optimal length (Porian et al. 2024, arXiv 2406.19146)."""

    formula: ClassVar[str] = "lr(N) = k N^a"
    reads: ClassVar[tuple[str, ...]] = ("params",)
    target: ClassVar[str] = "learning_rate"


@dataclass(frozen=True)
class RateOfSizeAndData(Law):
    """The best learning rate of a size and a length (Step Law, Li et al. 2025, arXiv 2503.04715)."""

    k: Value
    a: Value
    b: Value

    formula: ClassVar[str] = "lr(N, D) = k N^a D^b"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = {"k": POSITIVE, "a": SLOPE, "b": SLOPE}
    linear: ClassVar[tuple[str, ...]] = ("k",)
    target: ClassVar[str] = "learning_rate"
    delta: ClassVar[float] = np.inf

    def predict(self, N: Any, D: Any) -> Any:
        return self.k * N**self.a * D**self.b


@dataclass(frozen=True)
class BatchOfCompute(Monomial):
    """The best batch at C (DeepSeek)."""

    formula: ClassVar[str] = "batch(C) = k C^a"
    reads: ClassVar[tuple[str, ...]] = ("flops",)
    target: ClassVar[str] = "batch_tokens"


@dataclass(frozen=True)
class BatchOfSize(Monomial):
    """The best batch of a size, at its compute-optimal length (Porian et al.)."""

    formula: ClassVar[str] = "batch(N) = k N^a"
    reads: ClassVar[tuple[str, ...]] = ("params",)
    target: ClassVar[str] = "batch_tokens"


@dataclass(frozen=True)
class BatchOfData(Monomial):
    """The best batch of a length, whatever the size (Step Law)."""

    formula: ClassVar[str] = "batch(D) = k D^a"
    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    target: ClassVar[str] = "batch_tokens"


@dataclass(frozen=True)
class SizeOfCompute(Monomial):
    """N_opt(C), in whatever counts the size."""

    formula: ClassVar[str] = "N_opt(C) = k C^a"
    reads: ClassVar[tuple[str, ...]] = ("flops",)
    target: ClassVar[str] = "params"


@dataclass(frozen=True)
class TokensOfCompute(Monomial):
    """D_opt(C)."""

    formula: ClassVar[str] = "D_opt(C) = k C^a"
    reads: ClassVar[tuple[str, ...]] = ("flops",)
    target: ClassVar[str] = "tokens"


DEEPSEEK_RATE, DEEPSEEK_BATCH = RateOfCompute(k=0.3118, a=-0.1250), BatchOfCompute(k=0.2920, a=0.3271)
"""DeepSeek LLM 2024, of 1e17 to 2e19 FLOPs as its M counts them, runs within 0.25 % of the best of each budget."""

DEEPSEEK_SIZE, DEEPSEEK_TOKENS = SizeOfCompute(k=0.1715, a=0.5243), TokensOfCompute(k=5.8316, a=0.4757)
"""The same, of 1e17 to 3e20 FLOPs; its size is M, training FLOPs of a token (`scaling.flops.deepseek`), not N."""

PORIAN_RATE, PORIAN_BATCH = RateOfSize(k=3.7, a=-0.36), BatchOfSize(k=0.7576, a=0.703)
"""Porian et al. 2024: sizes of 5M to 902M with the head, AdamW, a constant learning rate, beta2 of 0.99 and above where
batches are small."""

STEP_RATE, STEP_BATCH = RateOfSizeAndData(k=1.79, a=-0.713, b=0.307), BatchOfData(k=0.58, a=0.571)
"""Step Law, Li et al. 2025: N without vocabulary. Their 1000 resamples spread by 0.030, 0.019 and 0.019 about the three
exponents; another estimator of the best moves those of the rate by 0.1 (`scaling.tuning`)."""

LLAMA3_TOKENS = TokensOfCompute(k=0.299, a=0.537)
"""Llama 3 (arXiv 2407.21783), figure 3, of 6e18 to 1e22 FLOPs; its text rounds to 0.29 and 0.53."""

KAPLAN_OPTIMAL_SIZE = SizeOfCompute(k=1.3e9 / 8.64e19**0.73, a=0.73)
"""Kaplan et al. 2020, of the least compute and N without embeddings: three causes of its large exponent are known, what
N leaves out, long warm-ups, and hyperparameters that were not tuned for each size (Porian et al. 2024)."""
