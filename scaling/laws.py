"""Scaling laws as formulas, and the constants their authors published.

Letters throughout `scaling`: N parameters, D training tokens, C training FLOPs, L loss in nats per token,
E the loss that no model and no data removes, a and b the exponents of N_opt ~ C^a and D_opt ~ C^b.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lm.core.errors import UserError

Array = NDArray[np.float64]
Value = float | Array
Bounds = Mapping[str, tuple[float, float]]
FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D: two for the forward pass, four for the backward
POSITIVE, ANY = (0.0, np.inf), (-np.inf, np.inf)


class Law(Protocol):
    """A formula for the loss of a run: a frozen dataclass whose fields are its constants.

    The fields are floats, or arrays of one shape: a bootstrap is one law of arrays [resamples]. `scaling.approach3`
    fits any law; `LAWS` holds those that `python -m scaling.fit --law=NAME` knows."""

    formula: ClassVar[str]  # for people
    reads: ClassVar[tuple[str, ...]]  # columns of the runs that `loss` takes, in its order
    # Of constants: POSITIVE ones are fitted in their logarithm, others as they are (ANY).
    bounds: ClassVar[Bounds]

    def loss(self, *inputs: Any) -> Any:
        """The loss, of arrays that broadcast against the fields. A pure function made of operators and of methods of
        arrays alone, since it is traced and differentiated by JAX as well as called with NumPy's arrays."""

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, loss: Array, *inputs: Array) -> Self:
        """A law of arrays [count] from which to search, drawn from the scale of the runs' losses and inputs, so that a
        fit serves bytes as well as tokens and thousands of parameters as well as billions."""


@runtime_checkable
class Frontier(Law, Protocol):
    """A law of params and tokens that says how to divide compute between them."""

    @property
    def exponents(self) -> tuple[Array, Array]:
        """(a, b), so that N_opt ~ C^a, D_opt ~ C^b and a + b = 1."""

    def optimal(self, C: Any) -> tuple[Array, Array]:
        """The N and D of least loss among those with 6 N D = C. Raises `UserError` where no such point exists."""

    @property
    def sound(self) -> Any:
        """Whether such a point exists, bool [resamples]."""


L = TypeVar("L", bound=Law)


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A / N^alpha + B / D^beta, Hoffmann et al. 2022 (arXiv 2203.15556), equation 2."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value

    formula: ClassVar[str] = "L(N, D) = E + A / N^alpha + B / D^beta"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = {"E": POSITIVE, "A": POSITIVE, "B": POSITIVE, "alpha": ANY, "beta": ANY}

    def loss(self, N: Any, D: Any) -> Any:
        """Predicted loss of N parameters trained on D tokens, in the unit of the runs that were fitted."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, loss: Array, N: Array, D: Array) -> Self:
        """Each of the three terms, at the middle run, between 2 % of the least loss and all of it."""
        a, b, e = loss.min() * np.exp(rng.uniform(-4, 0, (count, 3))).T
        alpha, beta = rng.uniform(0.05, 1.5, (count, 2)).T
        return cls(e, a * _middle(N) ** alpha, b * _middle(D) ** beta, alpha, beta)

    @property
    def exponents(self) -> tuple[Array, Array]:
        """(a, b) = (beta, alpha) / (alpha + beta), so that N_opt ~ C^a, D_opt ~ C^b and a + b = 1."""
        alpha, beta = np.asarray(self.alpha), np.asarray(self.beta)
        return beta / (alpha + beta), alpha / (alpha + beta)

    def optimal(self, C: Any) -> tuple[Array, Array]:
        """The N and D of least loss among those with 6 N D = C (the paper's equation 4).

        N = G (C/6)^a and D = (C/6)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        Raises `UserError` unless A, B, alpha and beta are positive: otherwise no such point exists.
        """
        A, B, alpha, beta = (np.asarray(v, np.float64) for v in (self.A, self.B, self.alpha, self.beta))
        if not np.all(self.sound):
            raise UserError(
                f"no compute-optimal frontier: A = {self.A}, B = {self.B}, alpha = {self.alpha}, "
                f"beta = {self.beta} are not all positive; add runs over a wider range of params and tokens"
            )
        a, b = self.exponents
        G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
        nd = np.asarray(C, np.float64) / FLOPS_PER_PARAM_TOKEN
        return G * nd**a, nd**b / G

    @property
    def sound(self) -> Any:
        return np.all([np.asarray(v) > 0 for v in (self.A, self.B, self.alpha, self.beta)], axis=0)


@dataclass(frozen=True)
class Kaplan:
    """L(N, D) = [(Nc / N)^(aN / aD) + Dc / D]^aD, Kaplan et al. 2020 (arXiv 2001.08361), equation 1.5: the loss where
    training ends before it overfits, N without embeddings. No loss remains that model and data cannot remove."""

    Nc: Value
    Dc: Value
    aN: Value
    aD: Value

    formula: ClassVar[str] = "L(N, D) = [(Nc / N)^(aN / aD) + Dc / D]^aD"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = dict.fromkeys(("Nc", "Dc", "aN", "aD"), POSITIVE)

    def loss(self, N: Any, D: Any) -> Any:
        return ((self.Nc / N) ** (self.aN / self.aD) + self.Dc / D) ** self.aD

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, loss: Array, N: Array, D: Array) -> Self:
        """Without the other each term makes, at the middle run, between 2 % of the least loss and all of it."""
        by_size, by_data = loss.min() * np.exp(rng.uniform(-4, 0, (count, 2))).T
        aN, aD = rng.uniform(0.03, 0.8, (count, 2)).T
        return cls(_middle(N) * by_size ** (1 / aN), _middle(D) * by_data ** (1 / aD), aN, aD)

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

    @property
    def sound(self) -> Any:
        return np.ones(np.shape(self.Nc), bool)


LAWS: dict[str, Any] = {"chinchilla": Chinchilla, "kaplan": Kaplan}


def _middle(values: Array) -> float:
    """The geometric mean."""
    return float(np.exp(np.log(values).mean()))


HOFFMANN = Chinchilla(
    E=float(np.exp(0.5267228)),
    A=float(np.exp(6.0073404)),
    B=float(np.exp(6.0179186)),
    alpha=0.33917084,
    beta=0.2849083,
)
"""Approach 3 of Hoffmann et al. 2022, unrounded, from the TeX source (read by Besiroglu et al. 2024). Its
optimiser had stopped early: the minimum of the same objective is `EPOCH`."""

HOFFMANN_PRINTED = Chinchilla(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""The same law as printed. Rounding alone moves the data term by 13 % at 1e11 tokens: use `HOFFMANN`."""

EPOCH = Chinchilla(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
"""Besiroglu et al. 2024 (arXiv 2404.10102), the refit to the points of Hoffmann's Figure 4, as printed: E is
of the Huber fit with delta = 1e-3, the other constants of an absolute-error fit (delta -> 0)."""

KAPLAN = Kaplan(Nc=6.4e13, Dc=1.8e13, aN=0.076, aD=0.103)
"""Kaplan et al. 2020, table 2, of WebText2's tokens; no intervals were published."""
