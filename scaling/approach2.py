"""Approach 2: a parabola through the runs of each compute budget, and a power law through the minima
(Hoffmann et al. 2022, section 3.2: isoFLOP profiles).

It needs no parametric form, but it is biased when alpha and beta differ and the grid of a budget is wide or
off centre (Czech et al. 2603.22339): keep grids within about a factor of ten around the minimum, or fit the
`nearest` runs only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from .laws import Array, Value


@dataclass(frozen=True, eq=False)
class Curve:
    """One budget: runs in order of N [runs], the parabola L = polyval(parabola, log N - log_n_mean), its
    minimum in N and in D (a parabola of its own), and whether that minimum lies outside the runs, so that it
    extrapolates (or does not exist: nan)."""

    budget: float
    N: Array
    D: Array
    loss: Array
    parabola: Array
    log_n_mean: float
    n_opt: float
    d_opt: float
    loss_opt: float
    at_edge: bool


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent; the fields are floats, or arrays [resamples] for a bootstrap."""

    coefficient: Value
    exponent: Value

    def __call__(self, C: ArrayLike) -> Array:
        return np.asarray(self.coefficient * np.asarray(C, np.float64) ** self.exponent)


@dataclass(frozen=True)
class LossLaw:
    """L = E + k C^-gamma of the best run at each budget: extrapolates better than a pure power law."""

    E: float
    k: float
    gamma: float

    def __call__(self, C: ArrayLike) -> Array:
        return self.E + self.k * np.asarray(C, np.float64) ** -self.gamma


@dataclass(frozen=True)
class Fit:
    """Curves in order of budget, those `used` for the power laws, and N_opt(C), D_opt(C); `loss` needs four
    budgets, else None."""

    curves: tuple[Curve, ...]
    used: tuple[Curve, ...]
    params: PowerLaw
    tokens: PowerLaw
    loss: LossLaw | None
    keep_edges: bool


def fit(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    budget: ArrayLike,
    *,
    nearest: int = 0,
    keep_edges: bool = False,
) -> Fit:
    """Fit isoFLOP profiles; N, D, loss, budget are [runs], positive, and `budget` has one value for each
    profile.

    A budget whose minimum lies outside its runs is left out unless `keep_edges` (a parabola that opens
    downwards has no minimum and is always left out). `nearest` > 0 fits only that many runs around the best
    one of each budget. N and D get parabolas and power laws of their own, so a + b = 1 is a result (of C = 6
    N D), not an assumption.

    Raises `UserError` for a budget of fewer than three distinct sizes, or fewer than two budgets left.
    """
    N, D, loss, budget = (np.asarray(v, np.float64) for v in (N, D, loss, budget))
    curves = []
    for c in np.unique(budget):
        rows = _nearest(N, loss, np.flatnonzero(budget == c), nearest)
        if (sizes := _sizes(N[rows], D[rows])) < 3:
            raise UserError(f"budget {c:.4g} has {sizes} distinct model sizes; a parabola needs three")
        curves.append(_curve(float(c), N[rows], D[rows], loss[rows]))
    used = _with_minimum(curves, keep_edges)
    if len(used) < 2:
        raise UserError(
            f"{len(used)} of {len(curves)} budgets have a minimum between their smallest and largest model; "
            "a power law needs two or more: add runs on the side where the loss still falls"
        )
    params, tokens = _power_laws(used)
    loss_law = fit_loss([c.budget for c in used], [c.loss_opt for c in used]) if len(used) >= 4 else None
    return Fit(tuple(curves), used, params, tokens, loss_law, keep_edges)


NOTHING_FREE = "no intervals: three runs fix a parabola; more sizes or seeds show how far to trust it"


def bootstrap(fitted: Fit, *, resamples: int = 100, seed: int = 0) -> tuple[PowerLaw, PowerLaw] | None:
    """N_opt(C) and D_opt(C) refitted to runs drawn with replacement within each used budget, as power laws of
    arrays [resamples]; fewer where a draw leaves fewer than two minima. None where some budget's parabola is fixed by
    its runs, of which every draw that has a parabola has the same one (see `NOTHING_FREE`).

    A budget's runs are drawn again while they have fewer than three sizes. Each draw leaves budgets out by
    the fit's own rule: a minimum extrapolated from a lopsided draw can be off by orders of magnitude.
    """
    if any(len(np.unique(np.stack([c.N, c.D, c.loss], axis=1), axis=0)) <= 3 for c in fitted.used):
        return None
    rng = np.random.default_rng(seed)
    laws = []
    for _ in range(resamples):
        used = _with_minimum([_redraw(curve, rng) for curve in fitted.used], fitted.keep_edges)
        if len(used) >= 2:
            params, tokens = _power_laws(used)
            laws.append([params.coefficient, params.exponent, tokens.coefficient, tokens.exponent])
    g, a, h, b = np.array(laws, np.float64).reshape(-1, 4).T
    return PowerLaw(g, a), PowerLaw(h, b)


def fit_loss(C: ArrayLike, loss: ArrayLike) -> LossLaw:
    """Least squares of the relative error of L = E + k C^-gamma with E, k >= 0; C, loss are [budgets].

    For a given gamma the law is linear in (E, k) (variable projection), so one dimension is searched, on a
    grid refined around its best point.
    """
    C, loss = np.asarray(C, np.float64), np.asarray(loss, np.float64)
    scaled = C / np.exp(np.log(C).mean())

    def project(gamma: float) -> tuple[float, float, float]:
        """(sum of squares, E, k of the scaled C) at the best E and k."""
        rows = np.stack([np.ones_like(C), scaled**-gamma], axis=1) / loss[:, None]
        (E, k), *_ = np.linalg.lstsq(rows, np.ones_like(C))
        if E < 0 or k < 0:  # the best point of the quarter plane is then on one of its sides
            sides = [(v @ np.ones_like(C)) / (v @ v) for v in rows.T]
            E, k = min(((sides[0], 0.0), (0.0, sides[1])), key=lambda ek: np.sum((rows @ ek - 1) ** 2))
        return float(np.sum((rows @ [E, k] - 1) ** 2)), float(E), float(k)

    low, high = np.log(1e-3), np.log(2.0)
    for _ in range(6):
        grid = np.linspace(low, high, 41)
        best = int(np.argmin([project(g)[0] for g in np.exp(grid)]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 40)]
    gamma = float(np.exp(grid[best]))
    _, E, k = project(gamma)
    return LossLaw(E, k * float(np.exp(np.log(C).mean() * gamma)), gamma)


def _sizes(N: Array, D: Array) -> int:
    return min(len(np.unique(N)), len(np.unique(D)))


def _nearest(N: Array, loss: Array, rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Of `rows`, the `count` (0: all) whose N is nearest that of the least loss."""
    if not count:
        return rows
    best = rows[np.argmin(loss[rows])]
    return rows[np.argsort(np.abs(np.log(N[rows] / N[best])), kind="stable")[:count]]


def _redraw(curve: Curve, rng: np.random.Generator) -> Curve:
    while True:
        rows = rng.choice(len(curve.N), len(curve.N))
        if _sizes(curve.N[rows], curve.D[rows]) >= 3:
            return _curve(curve.budget, curve.N[rows], curve.D[rows], curve.loss[rows])


def _with_minimum(curves: Sequence[Curve], keep_edges: bool) -> tuple[Curve, ...]:
    return tuple(c for c in curves if np.isfinite(c.n_opt * c.d_opt) and (keep_edges or not c.at_edge))


def _curve(budget: float, N: Array, D: Array, loss: Array) -> Curve:
    order = np.argsort(N, kind="stable")
    N, D, loss = N[order], D[order], loss[order]
    parabola, mean, n_opt, n_edge = _vertex(N, loss)
    _, _, d_opt, d_edge = _vertex(D, loss)
    loss_opt = float(np.polyval(parabola, np.log(n_opt) - mean))
    return Curve(budget, N, D, loss, parabola, mean, n_opt, d_opt, loss_opt, n_edge or d_edge)


def _vertex(v: Array, loss: Array) -> tuple[Array, float, float, bool]:
    """Parabola of the loss in log v - mean log v, that mean, the minimiser v (nan: none), whether it lies
    outside the runs."""
    x = np.log(v)
    mean = float(x.mean())
    parabola = np.polyfit(x - mean, loss, 2)
    if parabola[0] <= 0:
        return parabola, mean, float("nan"), True
    vertex = mean - parabola[1] / (2 * parabola[0])
    # A nearly straight profile has its vertex at infinity (or zero), which is no minimum either.
    optimum = float(np.exp(vertex)) if abs(vertex) < 700 else float("nan")
    return parabola, mean, optimum, not x.min() < vertex < x.max()


def _power_laws(curves: Sequence[Curve]) -> tuple[PowerLaw, PowerLaw]:
    log_c = np.log([c.budget for c in curves])
    fits = [np.polyfit(log_c, np.log(v), 1) for v in ([c.n_opt for c in curves], [c.d_opt for c in curves])]
    params, tokens = (PowerLaw(float(np.exp(intercept)), float(slope)) for slope, intercept in fits)
    return params, tokens
