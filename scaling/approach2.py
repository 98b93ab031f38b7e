"""Approach 2: the size of least loss at each of some compute budgets, and power laws through those sizes (Hoffmann et
al. 2022, section 3.2: isoFLOP profiles).

It needs no parametric form, but a parabola is off its mark when alpha and beta differ and the grid of a budget is wide
or off centre (Czech et al. 2026, arXiv 2603.22339): keep grids within about a factor of ten around the minimum, or fit
the `nearest` runs only. `bias` says by how much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from .interpolation import BEYOND, Interpolation, Minima, Parabola, distinct
from .laws import Array
from .power import Allocation, PowerLaw, allocate

LossOf = Callable[[Array, Array], Array]  # of N and D
WEIGHING = 500  # draws of the noise, from which the variance of a minimum is taken where minima are weighed
SEEDS_ENOUGH = 5  # differences between equal runs that tell the noise better than what a smooth curve leaves
CUBIC = 6  # sizes from which on that curve is a cubic, so that a profile's lopsidedness is not taken for noise
UNUSUAL = 95.0  # percent of draws of the noise that leave minima nearer their power law than those of the runs are
NOTHING_FREE = "no intervals: three runs fix a parabola; more sizes or seeds show how far to trust it"


@dataclass(frozen=True, eq=False)
class Curve:
    """One budget: its runs in order of N [runs], and what the interpolation makes of them: minima in N and, by a curve
    of its own, in D (nan: none), the loss of the first, and whether either lies outside the runs, so that it
    extrapolates. `beside` counts the sizes below and above the minimum."""

    budget: float
    N: Array
    D: Array
    loss: Array
    n_opt: float
    d_opt: float
    loss_opt: float
    at_edge: bool
    beside: tuple[int, int]
    interpolation: type[Interpolation]

    def at(self, N: Array) -> Array:
        """The loss of the curve at sizes N."""
        return self.interpolation.curve(np.log(self.N), self.loss, np.log(N))


@dataclass(frozen=True, eq=False)
class Fit(Allocation):
    """The laws, curves in order of budget, and those that the laws go through (`used`)."""

    curves: tuple[Curve, ...]
    used: tuple[Curve, ...]
    keep_edges: bool
    interpolation: type[Interpolation]


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a run's log loss about what its size and budget give, known from `freedom` differences
    between runs."""

    sigma: float
    freedom: int
    seeds: bool  # from runs of equal size and budget; else from what a smooth curve leaves


def fit(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    budget: ArrayLike,
    *,
    interpolation: type[Interpolation] = Parabola,
    nearest: int = 0,
    keep_edges: bool = False,
) -> Fit:
    """Fit isoFLOP profiles; N, D, loss, budget are [runs], positive, and `budget` has one value for each profile.

    A budget whose minimum lies outside its runs is left out unless `keep_edges` (one without a minimum always is).
    `nearest` > 0 fits only that many runs around the best one of each budget. N and D get curves and power laws of
    their own, so a + b = 1 is a result (of C = 6 N D), not an assumption.

    Raises `UserError` for a budget of too few distinct sizes, or fewer than two budgets left.
    """
    N, D, loss, budget = (np.asarray(v, np.float64) for v in (N, D, loss, budget))
    curves = []
    for c in np.unique(budget):
        rows = _nearest(N, loss, np.flatnonzero(budget == c), nearest)
        rows = rows[np.argsort(N[rows], kind="stable")]
        sizes = min(distinct(np.log(N[rows])), distinct(np.sort(np.log(D[rows]))))
        if sizes < (need := interpolation.fewest):
            raise UserError(f"budget {c:.4g} has {sizes} distinct model sizes; {interpolation.name} needs {need}")
        curves.append(_curve(float(c), N[rows], D[rows], loss[rows], interpolation))
    used = tuple(c for c in curves if np.isfinite(c.n_opt * c.d_opt) and (keep_edges or not c.at_edge))
    if len(used) < 2:
        raise UserError(
            f"{len(used)} of {len(curves)} budgets have a minimum between their smallest and largest model; "
            "a power law needs two or more: add runs on the side where the loss still falls"
        )
    laws = _through(used, _weights(used))
    return Fit(laws.params, laws.tokens, laws.loss, tuple(curves), used, keep_edges, interpolation)


def noise_of(curves: Sequence[Curve]) -> Noise | None:
    """The noise of runs, one for all budgets; None where the runs leave nothing over to tell it from."""
    # A run that stands there twice says nothing of noise.
    once = [np.unique(np.stack([c.N, c.D, c.loss]), axis=1) for c in curves]
    squares, freedom = _between_seeds(once)
    if freedom >= SEEDS_ENOUGH:
        return Noise(float(np.sqrt(squares / freedom)), freedom, True)
    squares, freedom = 0.0, 0
    for N, _, loss in once:
        x, y = np.log(N), np.log(loss)
        degree = 3 if (sizes := distinct(x)) >= CUBIC else 2
        if sizes > degree:
            left = y - np.polyval(np.polyfit(x - x.mean(), y, degree), x - x.mean())
            squares, freedom = squares + float(left @ left), freedom + len(x) - degree - 1
    return Noise(float(np.sqrt(squares / freedom)), freedom, False) if freedom else None


def bootstrap(fitted: Fit, *, resamples: int = 100, seed: int = 0) -> Allocation | None:
    """The laws refitted to losses with the runs' noise added once more, as laws of arrays [resamples]; fewer where a
    draw leaves fewer than two minima. None where the runs do not tell their noise (see `NOTHING_FREE`).

    Each draw leaves budgets out by the fit's own rule. Its noise is itself uncertain, so that draws have the tails of
    Student's distribution. Where the minima lie farther off the power law than noise explains (learning rates not
    tuned alike, say), draws are spread about the fit by as much (the Birge ratio). Intervals by Akima's curve are
    wide, since noise is added to curves that already bend to it.
    """
    noise = noise_of(fitted.curves)
    if noise is None:
        return None
    rng = np.random.default_rng(seed)
    sigma = noise.sigma * np.sqrt(noise.freedom / rng.chisquare(noise.freedom, resamples))
    in_n, in_d = _noisy(fitted.used, sigma, rng)
    there = np.isfinite(in_n.x + in_d.x)  # [resamples, budgets]
    if not fitted.keep_edges:
        there = there & in_n.inside & in_d.inside
    some = there.sum(1) >= 2
    there, n, d, loss = (v[some] for v in (there, in_n.x, in_d.x, in_n.loss))
    C = np.array([c.budget for c in fitted.used])
    weights = [w * there for w in _weights(fitted.used)]
    drawn = allocate(C, np.exp(n), np.exp(d), loss, weights)
    params = _widened(fitted.params, drawn.params, C, [c.n_opt for c in fitted.used], np.exp(n), weights[0])
    tokens = _widened(fitted.tokens, drawn.tokens, C, [c.d_opt for c in fitted.used], np.exp(d), weights[1])
    return Allocation(params, tokens, drawn.loss)


@dataclass(frozen=True)
class Bias:
    """What an estimator makes of losses without noise, at the fitted runs' own sizes and tokens: `found` by it, and the
    `truth` of the law the losses are from, both by power laws through the minima of the same budgets."""

    found: Allocation
    truth: Allocation

    @property
    def a(self) -> float:
        return float(self.found.params.exponent - self.truth.params.exponent)

    @property
    def b(self) -> float:
        return float(self.found.tokens.exponent - self.truth.tokens.exponent)

    def corrected(self, laws: Allocation) -> Allocation:
        """Laws, or draws, found by this estimator less its error in log N and log D, which is a power law of C too."""

        def less(law: PowerLaw, found: PowerLaw, truth: PowerLaw) -> PowerLaw:
            return PowerLaw(
                law.coefficient * (truth.coefficient / found.coefficient),
                law.exponent - found.exponent + truth.exponent,
            )

        return Allocation(
            less(laws.params, self.found.params, self.truth.params),
            less(laws.tokens, self.found.tokens, self.truth.tokens),
            laws.loss,
        )


def bias(fitted: Fit, loss_of: LossOf) -> Bias | None:
    """How far the fit is off its mark if `loss_of` is the law of the runs (that of approach 3, say). None where fewer
    than two of the law's budgets have a minimum.

    The truth of a budget is the least loss along the budget's own runs, log D as a polynomial of log N through them,
    so that any count of FLOPs will do.
    """
    found, truth = [], []
    for curve in fitted.used:
        exact = _curve(curve.budget, curve.N, curve.D, loss_of(curve.N, curve.D), fitted.interpolation)
        least = _least(curve, loss_of)
        if np.isfinite(exact.n_opt * exact.d_opt) and least is not None:
            found.append(exact)
            truth.append(least)
    if len(found) < 2:
        return None
    weights = _weights(found)
    C, (n, d, loss) = np.array([c.budget for c in found]), np.array(truth).T
    return Bias(_through(found, weights), allocate(C, n, d, loss, weights))


def _nearest(N: Array, loss: Array, rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Of `rows`, the `count` (0: all) whose N is nearest that of the least loss."""
    if not count:
        return rows
    best = rows[np.argmin(loss[rows])]
    return rows[np.argsort(np.abs(np.log(N[rows] / N[best])), kind="stable")[:count]]


def _curve(budget: float, N: Array, D: Array, loss: Array, interpolation: type[Interpolation]) -> Curve:
    """Of runs in order of N."""
    in_n, in_d = _minima(N, D, loss, interpolation)
    n_opt, d_opt, inside = float(np.exp(in_n.x)), float(np.exp(in_d.x)), bool(in_n.inside and in_d.inside)
    below, above = (distinct(np.log(v)) if len(v) else 0 for v in (N[n_opt > N], N[n_opt < N]))
    return Curve(budget, N, D, loss, n_opt, d_opt, float(in_n.loss), not inside, (below, above), interpolation)


def _minima(N: Array, D: Array, losses: Array, interpolation: type[Interpolation]) -> tuple[Minima, Minima]:
    """In N and in D, of losses [..., runs]."""
    order = np.argsort(D, kind="stable")
    in_d = interpolation.minima(np.log(D[order]), losses[..., order])
    return interpolation.minima(np.log(N), losses), in_d


def _noisy(curves: Sequence[Curve], sigma: Array, rng: np.random.Generator) -> tuple[Minima, Minima]:
    """Minima [draws, curves] in N and in D with noise of standard deviation sigma [draws] added to log losses."""
    each = []
    for curve in curves:
        noise = np.exp(sigma[:, None] * rng.standard_normal((len(sigma), len(curve.N))))
        each.append(_minima(curve.N, curve.D, curve.loss * noise, curve.interpolation))
    in_n, in_d = (
        Minima(*(np.stack(v, axis=1) for v in zip(*minima, strict=True))) for minima in zip(*each, strict=True)
    )
    return in_n, in_d


def _weights(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """Of each curve's minimum in N and in D: the inverse of its variance, or one where the interpolation weighs none or
    the noise is not known."""
    noise = noise_of(curves)
    if not curves[0].interpolation.weighted or noise is None or noise.sigma == 0:
        return np.ones(len(curves)), np.ones(len(curves))
    both = _noisy(curves, np.full(WEIGHING, noise.sigma), np.random.default_rng(0))
    in_n, in_d = (1 / np.nanvar(np.where(m.inside, m.x, np.nan), axis=0) for m in both)
    return in_n, in_d


def _through(curves: Sequence[Curve], weights: tuple[Array, Array]) -> Allocation:
    C, n, d, loss = (np.array([getattr(c, k) for c in curves]) for k in ("budget", "n_opt", "d_opt", "loss_opt"))
    return allocate(C, n, d, loss, weights)


def _widened(
    law: PowerLaw, drawn: PowerLaw, C: Array, found: Sequence[float], draws: Array, weights: Array
) -> PowerLaw:
    """`drawn` spread about `law` where the minima `found` [budgets] lie farther off it than those of `draws`
    [resamples, budgets], which noise alone has moved, lie off theirs."""
    if len(C) < 3:
        return drawn
    off = np.log(found) - np.log(law(C))
    log_fitted = np.log(drawn.coefficient)[:, None] + np.asarray(drawn.exponent)[:, None] * np.log(C)
    by_noise = np.where(weights > 0, np.log(np.where(weights > 0, draws, 1.0)) - log_fitted - off, 0.0)
    seen, usual = (weights * off**2).sum(1), (weights * by_noise**2).sum(1)
    beyond = np.median(seen) > np.percentile(usual, UNUSUAL) > 0
    spread = float(np.sqrt(np.median(seen) / np.median(usual))) if beyond else 1.0
    return PowerLaw(
        np.exp(np.log(law.coefficient) + spread * (np.log(drawn.coefficient) - np.log(law.coefficient))),
        law.exponent + spread * (drawn.exponent - law.exponent),
    )


def _between_seeds(budgets: Sequence[Array]) -> tuple[float, int]:
    """Of budgets [3, runs] of N, D and loss: the sum of squares about the means of log loss of runs of equal N and D,
    and how many differences that is."""
    squares, freedom = 0.0, 0
    for N, D, loss in budgets:
        _, which = np.unique(np.stack([N, D]), axis=1, return_inverse=True)
        y = np.log(loss)
        left = y - (np.bincount(which, y) / np.bincount(which))[which]
        squares, freedom = squares + float(left @ left), freedom + len(y) - int(which.max()) - 1
    return squares, freedom


def _least(curve: Curve, loss_of: LossOf) -> tuple[float, float, float] | None:
    """N, D and loss of the law's minimum along the budget's runs; None where it is too far off them."""
    x = np.log(curve.N)
    tokens = np.polyfit(x - x.mean(), np.log(curve.D), 2 if distinct(x) >= CUBIC else 1)
    grid = np.linspace(x.min() - BEYOND, x.max() + BEYOND, 4001)
    N, D = np.exp(grid), np.exp(np.polyval(tokens, grid - x.mean()))
    loss = loss_of(N, D)
    at = int(np.argmin(loss))
    return (float(N[at]), float(D[at]), float(loss[at])) if 0 < at < len(grid) - 1 else None
