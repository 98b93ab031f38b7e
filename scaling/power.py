"""Power laws of compute, which approaches 1 and 2 put through the sizes they find best at some budgets."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .laws import Array, Value


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent; the fields are floats, or arrays [resamples] for a bootstrap."""

    coefficient: Value
    exponent: Value

    def __call__(self, C: ArrayLike) -> Array:
        return np.asarray(self.coefficient * np.asarray(C, np.float64) ** self.exponent)


@dataclass(frozen=True)
class LossLaw:
    """L = E + k C^-gamma of the best run at each budget: extrapolates better than a pure power law. Fields as those of
    `PowerLaw`."""

    E: Value
    k: Value
    gamma: Value

    def __call__(self, C: ArrayLike) -> Array:
        return np.asarray(self.E + self.k * np.asarray(C, np.float64) ** -self.gamma)


@dataclass(frozen=True)
class Allocation:
    """How to spend compute: N_opt(C), D_opt(C), and the loss there (None: too few budgets to tell). Of a bootstrap, one
    of laws of arrays [resamples]."""

    params: PowerLaw
    tokens: PowerLaw
    loss: LossLaw | None

    def decisions(self, flops: float) -> dict[str, Value]:
        """What one would do with so much compute, as `scaling.laws.Law.decisions`."""
        N, D = self.params(flops), self.tokens(flops)
        found = {"a": self.params.exponent, "b": self.tokens.exponent, "N_opt": N, "D_opt": D, "D/N": D / N}
        return found if self.loss is None else {**found, "loss": self.loss(flops)}


FEWEST_LOSSES = 4  # budgets that a law of three constants needs


def allocate(C: Array, N: Array, D: Array, loss: Array, weights: Sequence[Array] | None = None) -> Allocation:
    """Laws through the best N, D and loss [..., budgets] at budgets C [budgets]. `weights` are those of N and of D,
    [..., budgets]; a budget whose weight is zero counts for nothing."""
    of_n, of_d = (np.ones_like(N), np.ones_like(D)) if weights is None else weights
    there = (of_n > 0).astype(np.float64)
    law = fit_loss(C, np.where(there > 0, loss, 1.0), there) if len(C) >= FEWEST_LOSSES else None
    return Allocation(fit_power(C, N, of_n), fit_power(C, D, of_d), law)


def stack(laws: Sequence[Allocation]) -> Allocation:
    """Laws of one number each as one of arrays [len(laws)]; with a law of the loss where all have one."""

    def together(kind: Any, each: Sequence[Any]) -> Any:
        return kind(*np.array([astuple(law) for law in each], np.float64).T)

    losses = [law.loss for law in laws]
    return Allocation(
        together(PowerLaw, [law.params for law in laws]),
        together(PowerLaw, [law.tokens for law in laws]),
        None if None in losses else together(LossLaw, losses),
    )


def fit_power(C: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> PowerLaw:
    """Weighted least squares of log y [..., budgets] on log C [budgets]."""
    log_c, y = np.log(np.asarray(C, np.float64)), np.asarray(y, np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum(-1, keepdims=True)
    log_y = np.log(np.where(w > 0, y, 1.0))
    x = log_c - (w * log_c).sum(-1, keepdims=True)
    slope = (w * x * log_y).sum(-1) / (w * x * x).sum(-1)
    return PowerLaw(np.exp((w * log_y).sum(-1) - slope * (w * log_c).sum(-1))[()], slope[()])


def fit_loss(C: ArrayLike, loss: ArrayLike, weights: ArrayLike | None = None) -> LossLaw:
    """Least squares of the relative error of L = E + k C^-gamma with E, k >= 0; C is [budgets], loss and weights [...,
    budgets]. Constants are nan where fewer than `FEWEST_LOSSES` weights are positive.

    For a given gamma the law is linear in (E, k) (variable projection), so one dimension is searched, on a grid refined
    around its best point.
    """
    C, loss = np.asarray(C, np.float64), np.asarray(loss, np.float64)
    weights = np.ones_like(loss) if weights is None else np.asarray(weights, np.float64)
    middle = np.log(C).mean()
    scaled, w, inverse = np.log(C) - middle, weights[..., None, :], 1 / loss[..., None, :]

    def project(log_gamma: Array) -> tuple[Array, Array, Array]:
        """(sum of squares, E, k of the scaled C) [..., gammas] at the best E and k."""
        falls = np.exp(-np.exp(log_gamma)[..., None] * scaled) * inverse
        flat = np.broadcast_to(inverse, falls.shape)
        ee, ek, kk = ((w * p * q).sum(-1) for p, q in ((flat, flat), (flat, falls), (falls, falls)))
        e, k = (w * flat).sum(-1), (w * falls).sum(-1)
        det = ee * kk - ek * ek
        # Where one is negative, the best point of the quarter plane lies on one of its sides.
        both, one = (kk * e - ek * k, ee * k - ek * e), np.zeros_like(e)
        points = np.stack([np.stack([v / det for v in both]), np.stack([e / ee, one]), np.stack([one, k / kk])])
        errors = (w * (points[:, 0, ..., None] * flat + points[:, 1, ..., None] * falls - 1) ** 2).sum(-1)
        errors[0] = np.where((points[0] >= 0).all(0), errors[0], np.inf)
        best = np.argmin(errors, axis=0)[None, None]
        E, k = np.take_along_axis(points, np.broadcast_to(best, (1, 2, *e.shape)), 0)[0]
        return errors.min(0), E, k

    low = np.full(loss.shape[:-1], np.log(1e-3))
    high = np.full(loss.shape[:-1], np.log(2.0))
    for _ in range(6):
        grid = np.linspace(low, high, 41, axis=-1)
        best = np.argmin(project(grid)[0], axis=-1)[..., None]
        low, high = (np.take_along_axis(grid, np.clip(best + step, 0, 40), -1)[..., 0] for step in (-1, 1))
    log_gamma = np.take_along_axis(grid, best, -1)
    _, E, k = (v[..., 0] for v in project(log_gamma))
    gamma = np.exp(log_gamma[..., 0])
    enough = (weights > 0).sum(-1) >= FEWEST_LOSSES
    E, k, gamma = (np.where(enough, v, np.nan)[()] for v in (E, k * np.exp(middle * gamma), gamma))
    return LossLaw(E, k, gamma)
