"""Laws of repeated data."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .law import ANY, POSITIVE, Array, Bounds, Domain, Law, Value

NEAR = 1e-3  # below which the series is exact to the last digit


@dataclass(frozen=True)
class Repeated(Law):
    """L(N, D, U) = E + A / N'^alpha + B / D'^beta of D tokens, of which U are different, Muennighoff et al. 2023 (arXiv
    2305.16264), equations 5 and 6:

    D' = U + U RD (1 - exp(-R / RD)) with R = D / U - 1 repetitions, each worth less than the one before, and
    N' = V + V RN (1 - exp(-R / RN)) with R = N / V - 1, where V is the size for which U tokens are compute-optimal.

    RD and RN say after how many repetitions, or times too many parameters, 1 - 1/e of what can be gained has been.
    The base law is known better from runs of fresh data: fit E, A, B, alpha and beta to those and hold them, as the
    authors did. Even then RD is weakly identified: look at its profile, not at one number."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value
    RD: Value
    RN: Value

    formula: ClassVar[str] = "L(N, D, U) = E + A / N'^alpha + B / D'^beta, D' and N' worth less as data repeat"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        **dict.fromkeys(("alpha", "beta"), Domain(positive=True)),
        **dict.fromkeys(("RD", "RN"), Domain(positive=True, low=1.0, high=100.0)),
    }
    linear: ClassVar[tuple[str, ...]] = ("E",)  # A and B decide V too

    def predict(self, N: Any, D: Any, available: Any) -> Any:
        U = _least(D, available)
        V = _least(N, self.size_for(U))
        return self.E + self.A / _worth(N, V, self.RN) ** self.alpha + self.B / _worth(D, U, self.RD) ** self.beta

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> dict[str, Array]:
        """A and B such that each term, at the median run, is between 2 % of the median loss and all of it."""
        drawn = super().draw(rng, count, target, *inputs)
        a, b = np.median(target) * np.exp(rng.uniform(-4, 0, (2, count)))
        N, D = (np.median(v) for v in inputs[:2])
        return drawn | {"A": a * N ** drawn["alpha"], "B": b * D ** drawn["beta"]}

    def size_for(self, tokens: Any) -> Any:
        """The N for which so many fresh tokens are compute-optimal: G (G D)^(beta / alpha), where G^(alpha + beta) is
        alpha A / (beta B)."""
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return G * (G * tokens) ** (self.beta / self.alpha)


@dataclass(frozen=True)
class OverFitting(Law):
    """L(N, D, U) = E + A / N^alpha + B / D^beta + P (D / U - 1)^rho (N / U)^kappa: Chinchilla's law and a penalty of
    repetition, the larger the more parameters there are for each different token. Unlike `Repeated` it lets the loss
    rise with epochs, as Lovelace et al. 2026 (arXiv 2605.01640) propose; their exponents are not taken over: all three
    constants of the penalty are fitted."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value
    P: Value
    rho: Value
    kappa: Value

    formula: ClassVar[str] = "L(N, D, U) = E + A / N^alpha + B / D^beta + P (D / U - 1)^rho (N / U)^kappa"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        **dict.fromkeys(("alpha", "beta"), ANY),
        "P": POSITIVE,
        "rho": Domain(positive=True, low=0.3, high=3.0),
        "kappa": Domain(positive=True, low=0.1, high=2.0),
    }
    linear: ClassVar[tuple[str, ...]] = ("E", "A", "B", "P")

    def predict(self, N: Any, D: Any, available: Any) -> Any:
        U = _least(D, available)
        again = D / U - 1
        # A power of nothing has no derivative: the penalty of fresh data is left out rather than computed.
        penalty = self.P * (again + (again <= 0)) ** self.rho * (N / U) ** self.kappa * (again > 0)
        return self.E + self.A / N**self.alpha + self.B / D**self.beta + penalty


def _worth(amount: Any, unique: Any, decay: Any) -> Any:
    """What `amount` is worth in unique ones, where repetitions decay with `decay`: 1 + R f(R / decay) times those, of R
    repetitions, with f(x) = (1 - e^-x) / x. Near zero f is its series, for 1 - e^-x loses all its digits there, and a
    fit would find minima in the rounding."""
    again = amount / unique - 1
    x = again / decay
    near = x < NEAR
    y = x + near  # never zero
    return unique + unique * again * ((1 - near) * (1 - np.e**-y) / y + near * (1 - x / 2 + x**2 / 6 - x**3 / 24))


def _least(x: Any, y: Any) -> Any:
    return x * (x < y) + y * (x >= y)


MUENNIGHOFF = Repeated(
    E=float(np.exp(0.6254804)),
    A=float(np.exp(6.255414)),
    B=float(np.exp(7.3049974)),
    alpha=0.3526596,
    beta=0.3526596,
    RD=15.387756,
    RN=5.309743,
)
"""As published, on C4: the base law of 54 runs with alpha tied to beta, then RD and RN of 182 runs. Those two are not
the minimum of their objective, which is flat to 0.13 % from there to RD = 95, RN = 1.7."""
