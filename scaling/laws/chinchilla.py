"""The law of Hoffmann et al. 2022, and the constants of its publications."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lm.core.errors import UserError

from .law import ANY, FLOPS_PER_PARAM_TOKEN, POSITIVE, Array, Bounds, Frontier, Value


@dataclass(frozen=True)
class Chinchilla(Frontier):
    """L(N, D) = E + A / N^alpha + B / D^beta, Hoffmann et al. 2022 (arXiv 2203.15556), equation 2."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value

    formula: ClassVar[str] = "L(N, D) = E + A / N^alpha + B / D^beta"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens")
    bounds: ClassVar[Bounds] = {"E": POSITIVE, "A": POSITIVE, "B": POSITIVE, "alpha": ANY, "beta": ANY}
    linear: ClassVar[tuple[str, ...]] = ("E", "A", "B")

    def predict(self, N: Any, D: Any) -> Any:
        """Predicted loss of N parameters trained on D tokens, in the unit of the runs that were fitted."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    @property
    def exponents(self) -> tuple[Array, Array]:
        """(a, b) = (beta, alpha) / (alpha + beta), so that N_opt ~ C^a, D_opt ~ C^b and a + b = 1."""
        alpha, beta = np.asarray(self.alpha), np.asarray(self.beta)
        return beta / (alpha + beta), alpha / (alpha + beta)

    def optimal(self, C: Any) -> tuple[Array, Array]:
        """The N and D of least loss among those with 6 N D = C (the paper's equation 4).

        N = G (C/6)^a and D = (C/6)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        Where A, B, alpha and beta are not all positive no such point exists: nan, or `UserError` if none has one.
        """
        A, B, alpha, beta = (np.asarray(v, np.float64) for v in (self.A, self.B, self.alpha, self.beta))
        sound = self.sound
        if not np.any(sound):
            raise UserError(
                f"no compute-optimal frontier: A = {self.A}, B = {self.B}, alpha = {self.alpha}, "
                f"beta = {self.beta} are not all positive; add runs over a wider range of params and tokens"
            )
        a, b = self.exponents
        with np.errstate(invalid="ignore", divide="ignore"):
            G = np.where(sound, (alpha * A / (beta * B)) ** (1 / (alpha + beta)), np.nan)
        nd = np.asarray(C, np.float64) / FLOPS_PER_PARAM_TOKEN
        return G * nd**a, nd**b / G

    @property
    def sound(self) -> Any:
        return np.all([np.asarray(v) > 0 for v in (self.A, self.B, self.alpha, self.beta)], axis=0)


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

SARDANA_REFITS = {
    100: Chinchilla(E=0.17, A=7.199, B=25.97, alpha=0.08, beta=0.13),
    250: Chinchilla(E=0.98, A=14.23, B=39.54, alpha=0.13, beta=0.16),
    500: Chinchilla(E=0.95, A=17.07, B=35.80, alpha=0.13, beta=0.16),
    10_000: Chinchilla(E=1.45, A=33.66, B=138.9, alpha=0.18, beta=0.24),
}
"""Sardana et al. 2024 (arXiv 2401.00448): refits to 47 models by the most tokens a parameter that were let in. The
constants follow what is sampled; E most of all."""

SARDANA = Chinchilla(E=1.69, A=406.4, B=410.7, alpha=0.336, beta=0.283)
"""The law behind their published savings, which are reached with these exponents only: not with Hoffmann's as printed,
nor with `EPOCH`."""
