"""Laws of mixtures of experts.

Letters: N the parameters that one token meets, E experts of which it meets one (or the ratio of all to chosen ones)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from .chinchilla import Chinchilla
from .law import ANY, POSITIVE, Array, Bounds, Domain, Law, Value

SLOPE = Domain(positive=False, low=-0.5, high=0.5)


def saturating(experts: Any, start: Any, most: Any) -> Any:
    """E-hat (Clark et al. 2022, equation 7): 1 / E-hat = 1 / (E - 1 + 1 / (1 / start - 1 / most)) + 1 / most. It is
    `start` for one expert and never more than `most`."""
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most)


@dataclass(frozen=True)
class Routed(Law):
    """log L = a log N + b log E-hat + c log N log E-hat + d in logarithms to base 10, Clark et al. 2022 (arXiv
    2202.01169), equation 1: runs of one length, E experts of which each token meets one. N is what a token meets, so
    dense runs are those with one expert; without any, a and d, E_start and E_max are hardly told apart."""

    a: Value
    b: Value
    c: Value
    d: Value
    E_start: Value
    E_max: Value

    formula: ClassVar[str] = "log10 L = a log10 N + b log10 E' + c log10 N log10 E' + d, E' from E_start to E_max"
    reads: ClassVar[tuple[str, ...]] = ("params", "experts")
    bounds: ClassVar[Bounds] = {
        "a": Domain(positive=False, low=-0.3, high=-0.01),
        "b": Domain(positive=False, low=-0.4, high=0.0),
        "c": Domain(positive=False, low=0.0, high=0.03),
        "d": SLOPE,  # drawn so that the law meets the runs
        "E_start": Domain(positive=True, low=1.0, high=8.0),
        "E_max": Domain(positive=True, low=50.0, high=2000.0),
    }
    delta: ClassVar[float] = np.inf

    def predict(self, N: Any, experts: Any) -> Any:
        base, effective = 10.0**self.d, saturating(experts, self.E_start, self.E_max)
        return base * N**self.a * effective ** (self.b + self.c * _log10(N))

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        drawn = {name: domain.draw(rng, count) for name, domain in cls.bounds.items()}
        drawn["d"] = np.zeros(count)
        met = cls(**{name: v[:, None] for name, v in drawn.items()}).predict(*inputs)
        return cls(**{**drawn, "d": np.median(np.log10(target / met), axis=1)})

    def dense_equivalent(self, N: Any, experts: Any) -> Any:
        """The effective parameter count: the size of a dense model of the same loss."""
        one = _log10(saturating(1.0, self.E_start, self.E_max))
        e = _log10(saturating(experts, self.E_start, self.E_max))
        return 10 ** ((_log10(N) * (self.a + self.c * e) + self.b * (e - one)) / (self.a + self.c * one))

    @property
    def cutoff(self) -> Any:
        """The size from which on experts do not help, where b + c log N changes its sign. Far outside any runs."""
        return 10 ** (-np.asarray(self.b) / self.c)


@dataclass(frozen=True)
class Granular(Law):
    """L(N, D, G) = c + (g / G^gamma + a) / N^alpha + b / D^beta, Krajewski et al. 2024 (arXiv 2402.07871), equation 9:
    experts G times narrower than the dense layer's hidden units, and as many more of them for each token, at one ratio
    of all to active ones (theirs: 64). N excludes embeddings and counts all experts."""

    c: Value
    a: Value
    alpha: Value
    b: Value
    beta: Value
    g: Value
    gamma: Value

    formula: ClassVar[str] = "L(N, D, G) = c + (g / G^gamma + a) / N^alpha + b / D^beta"
    reads: ClassVar[tuple[str, ...]] = ("total_params", "tokens", "granularity")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("c", "a", "b", "g"), POSITIVE),
        **dict.fromkeys(("alpha", "beta", "gamma"), ANY),
    }
    linear: ClassVar[tuple[str, ...]] = ("c", "a", "b", "g")

    def predict(self, N: Any, D: Any, G: Any) -> Any:
        return self.c + (self.g / G**self.gamma + self.a) / N**self.alpha + self.b / D**self.beta

    def at(self, granularity: float) -> Chinchilla:
        """Of one granularity it is Chinchilla's law."""
        return Chinchilla(self.c, self.g / granularity**self.gamma + self.a, self.b, self.alpha, self.beta)


@dataclass(frozen=True)
class Joint(Law):
    """L(N, D, E) = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c, Ludziejewski et al. 2025
    (arXiv 2502.05172), equation 6, with Clark's saturating E' from E_start to E_max: experts change the exponents of
    size and of data, so that with more of them a budget is better spent on data. Exponents are negative."""

    a: Value
    alpha: Value
    delta_: Value
    gamma: Value
    b: Value
    beta: Value
    omega: Value
    zeta: Value
    E_start: Value
    E_max: Value
    c: Value

    formula: ClassVar[str] = "L(N, D, E) = a E'^delta N^(alpha + gamma ln E') + b E'^omega D^(beta + zeta ln E') + c"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens", "experts")
    bounds: ClassVar[Bounds] = {
        "a": POSITIVE,
        "alpha": Domain(positive=False, low=-0.8, high=-0.05),
        "delta_": SLOPE,
        "gamma": Domain(positive=False, low=-0.05, high=0.05),
        "b": POSITIVE,
        "beta": Domain(positive=False, low=-0.8, high=-0.05),
        "omega": SLOPE,
        "zeta": Domain(positive=False, low=-0.05, high=0.05),
        "E_start": Domain(positive=True, low=1.0, high=8.0),
        "E_max": Domain(positive=True, low=50.0, high=2000.0),
        "c": POSITIVE,
    }
    linear: ClassVar[tuple[str, ...]] = ("a", "b", "c")

    def predict(self, N: Any, D: Any, experts: Any) -> Any:
        e = saturating(experts, self.E_start, self.E_max)
        size = self.a * e**self.delta_ * N ** (self.alpha + self.gamma * _log(e))
        data = self.b * e**self.omega * D ** (self.beta + self.zeta * _log(e))
        return size + data + self.c

    def at(self, experts: float) -> Chinchilla:
        """Of one number of experts it is Chinchilla's law (the paper's table 4), N being what a token meets."""
        e = saturating(experts, self.E_start, self.E_max)
        A, B = self.a * e**self.delta_, self.b * e**self.omega
        return Chinchilla(self.c, A, B, -(self.alpha + self.gamma * _log(e)), -(self.beta + self.zeta * _log(e)))


@dataclass(frozen=True)
class Sparse(Law):
    """L(N, D, S) = a / N^alpha + b / D^beta + c / (1 - S)^lam + d / ((1 - S)^delta N^gamma) + e, Abnar et al. 2025
    (arXiv 2501.12370), equation 6, N being all parameters and S the share of experts that a token does not meet. A
    warning as much as a law: ten constants explain 99 % of the variance of the runs they were fitted to, and 68 % of
    that of runs at a sparsity held out."""

    a: Value
    alpha: Value
    b: Value
    beta: Value
    c: Value
    lam: Value
    d: Value
    delta_: Value
    gamma: Value
    e: Value

    formula: ClassVar[str] = "L(N, D, S) = a / N^alpha + b / D^beta + c / (1 - S)^lam + d / ((1 - S)^delta N^gamma) + e"
    reads: ClassVar[tuple[str, ...]] = ("total_params", "tokens", "sparsity")
    bounds: ClassVar[Bounds] = {
        "a": POSITIVE,
        "alpha": ANY,
        "b": POSITIVE,
        "beta": ANY,
        "c": POSITIVE,
        "lam": SLOPE,
        "d": POSITIVE,
        "delta_": SLOPE,
        "gamma": ANY,
        "e": POSITIVE,
    }
    linear: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d", "e")

    def predict(self, N: Any, D: Any, sparsity: Any) -> Any:
        active = 1 - sparsity
        own = self.a / N**self.alpha + self.b / D**self.beta + self.e
        return own + self.c / active**self.lam + self.d / (active**self.delta_ * N**self.gamma)


def _log(x: Any) -> Any:
    """Operators have none: NumPy's, in float64, unless JAX is tracing."""
    return jnp.log(x) if isinstance(x, jax.Array) else np.log(x)


def _log10(x: Any) -> Any:
    return _log(x) / np.log(10.0)


CLARK_DENSE_EXPONENT, CLARK_DENSE_SCALE = 0.078, 3.568e13
"""Clark et al. 2022: of dense runs of the same 130 B tokens, L(N) = (Nc / N)^alpha (`scaling.laws.SizePower`)."""

CLARK_SBASE = Routed(a=-0.082, b=-0.108, c=0.009, d=1.104, E_start=1.847, E_max=314.478)
"""Clark et al. 2022, table 3, by router; the constants of saturation are weakly identified."""
CLARK_RL = Routed(a=-0.083, b=-0.126, c=0.012, d=1.111, E_start=1.880, E_max=469.982)
CLARK_HASH = Routed(a=-0.087, b=-0.136, c=0.012, d=1.157, E_start=4.175, E_max=477.741)

KRAJEWSKI = Granular(c=0.47, a=18.1, alpha=0.115, b=30.8, beta=0.147, g=2.1, gamma=0.58)
"""Krajewski et al. 2024, table 2, 64 times as many parameters in the experts as in a dense layer; Huber's delta is 0.1
there. Of their dense models:"""
KRAJEWSKI_DENSE = Chinchilla(E=0.47, A=16.3, B=26.7, alpha=0.126, beta=0.127)

LUDZIEJEWSKI = Joint(
    a=35.91,
    alpha=-0.1889,
    delta_=-0.2285,
    gamma=0.0098,
    b=35.98,
    beta=-0.1775,
    omega=0.5529,
    zeta=-0.0259,
    E_start=2.0732,
    E_max=290.4521,
    c=1.3637,
)
"""Ludziejewski et al. 2025, table 3, of 280 runs, N with embedding and head."""

ABNAR = Sparse(
    a=16612.5,
    alpha=0.5962,
    b=5455.67,
    beta=0.3954,
    c=0.4598,
    lam=-0.1666,
    d=17.26,
    delta_=0.1603,
    gamma=0.1595,
    e=0.94,
)
"""Abnar et al. 2025, table 3."""
