"""Approach 1: the least loss that any run had reached at each amount of compute, and power laws through the sizes of
those runs (Hoffmann et al. 2022, section 3.1).

`Envelope` takes curves: the loss of a run as its compute grows, or the final losses of all runs of one size. They are
interpolated in log C and log L, and at each C the lowest one counts, where smaller and larger models had reached that C
too. `Hull` takes points of any kind: the corners of their lower convex hull in log C and log L (McLeish et al. 2025,
arXiv 2502.06857).

The loss of a cosine schedule before its end is no final loss (Hoffmann et al., appendix B): give points at which the
learning rate had decayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from .laws import Array
from .power import Allocation, allocate, fit_power, stack

GRID = 1500  # values of C at which curves are compared, as in the paper
LOSSES = 50  # of the best points, through which the law of the loss goes: neighbours say the same
FEWEST = 3  # sizes that a power law goes through
SPARE = 1.5  # factor by which an optimum must lie inside the sizes that had reached its compute
ROUNDS = 4  # of the power law and the range of compute it is taken from, which depend on one another
NOTHING_FREE = "no intervals: hardly a draw of these runs has three sizes that are best; more sizes would show more"


@dataclass(frozen=True, eq=False)
class Curve:
    """What one run had reached, in order of compute: its size, and C, D and loss [points]."""

    N: float
    C: Array
    D: Array
    loss: Array


@dataclass(frozen=True, eq=False)
class Points:
    """Runs that no other beats at their compute, in order of compute, [points] each."""

    C: Array
    N: Array
    D: Array
    loss: Array

    @property
    def sizes(self) -> int:
        return len(np.unique(self.N))


class Estimator(Protocol):
    """Finds the best points among the curves of a sweep."""

    def __init__(self, curves: Sequence[Curve]) -> None: ...

    def best(self, drawn: NDArray[np.bool_]) -> Points:
        """Of those curves alone that `drawn` [curves] names."""


@dataclass(frozen=True, eq=False)
class Fit(Allocation):
    """The laws, the `best` points they go through, and the curves those come from."""

    best: Points
    curves: tuple[Curve, ...]
    estimator: Estimator


def curves_of(N: ArrayLike, D: ArrayLike, loss: ArrayLike, C: ArrayLike, run: ArrayLike) -> tuple[Curve, ...]:
    """Points [points] as one curve for each value of `run` [points]: the run's name, or its size. Points of equal C in
    one curve are averaged, in the logarithm.

    Raises `UserError` where a run has more than one N.
    """
    N, D, loss, C = (np.asarray(v, np.float64) for v in (N, D, loss, C))
    names, which = np.unique(np.asarray(run), return_inverse=True)
    found = []
    for i, name in enumerate(names):
        rows = which == i
        if N[rows].max() > N[rows].min() * 1.001:
            raise UserError(
                f"run {name} has params {N[rows].min():.4g} and {N[rows].max():.4g}; a run has one size: name the "
                "column that tells runs apart"
            )
        c, at = np.unique(C[rows], return_inverse=True)
        mean_d, mean_loss = (np.exp(np.bincount(at, np.log(v[rows])) / np.bincount(at)) for v in (D, loss))
        found.append(Curve(float(N[rows][0]), c, mean_d, mean_loss))
    return tuple(found)


class Envelope:
    """The lowest of interpolated curves at `GRID` values of C."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        if not any(len(c.C) > 1 for c in curves):
            raise UserError(
                "no run has two points, so there are no curves to take an envelope of: take the hull (--best=hull), or "
                "name the column that says which points are of one run (--run)"
            )
        self.N = np.array([c.N for c in curves])
        ends = [v for c in curves for v in (c.C[0], c.C[-1])]
        self.C = np.geomspace(min(ends), max(ends), GRID)

        def interpolated(c: Curve, values: Array) -> Array:
            return np.interp(np.log(self.C), np.log(c.C), np.log(values), left=np.nan, right=np.nan)

        self.log_loss = np.stack([interpolated(c, c.loss) for c in curves])  # [curves, GRID], nan where not reached
        self.log_d = np.stack([interpolated(c, c.D) for c in curves])

    def best(self, drawn: NDArray[np.bool_]) -> Points:
        losses = np.where(drawn[:, None] & np.isfinite(self.log_loss), self.log_loss, np.inf)
        which = np.argmin(losses, axis=0)  # [GRID]
        reached = np.isfinite(losses)
        smallest = np.where(reached, self.N[:, None], np.inf).min(0)
        largest = np.where(reached, self.N[:, None], -np.inf).max(0)
        # The best of those there are may be far from the best there could be, if it is at their edge ...
        kept = (smallest < self.N[which]) & (self.N[which] < largest)
        # ... but where the optimum is near that edge, leaving these out would favour what luck put inside. So points
        # count by where the power law itself has the optimum.
        for _ in range(ROUNDS):
            if len(np.unique(self.N[which[kept]])) < FEWEST:
                break
            optimum = fit_power(self.C[kept], self.N[which[kept]])(self.C)
            kept = (smallest * SPARE < optimum) & (optimum * SPARE < largest)
        at = np.flatnonzero(kept)
        which = which[at]
        return Points(self.C[at], self.N[which], np.exp(self.log_d[which, at]), np.exp(losses[which, at]))


class Hull:
    """The corners of the lower convex hull of all points, without the first and the last, which lie on it whatever
    their size, and those of the smallest and the largest size, beyond which there may be a better one. Noise makes
    corners of lucky runs, which flattens N_opt(C): prefer the envelope where runs have curves."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curve = np.repeat(np.arange(len(curves)), [len(c.C) for c in curves])
        self.N = np.array([c.N for c in curves])[self.curve]
        self.C, self.D, self.loss = (np.concatenate([getattr(c, k) for c in curves]) for k in ("C", "D", "loss"))

    def best(self, drawn: NDArray[np.bool_]) -> Points:
        points = np.flatnonzero(drawn[self.curve])
        x, y = np.log(self.C), np.log(self.loss)
        corners: list[int] = []
        for i in points[np.lexsort((y[points], x[points]))]:
            while len(corners) > 1 and _turn(x, y, corners[-2], corners[-1], i) <= 0:
                corners.pop()
            corners.append(int(i))
        falling = np.array(corners[: 1 + int(np.argmin(y[corners]))][1:-1], int)
        N = self.N[falling]
        at = falling[(self.N[points].min() < N) & (self.N[points].max() > N)]
        return Points(self.C[at], self.N[at], self.D[at], self.loss[at])


ESTIMATORS: dict[str, type[Estimator]] = {"envelope": Envelope, "hull": Hull}


def fit(estimator: type[Estimator], curves: Sequence[Curve]) -> Fit:
    """Raises `UserError` where fewer than three sizes are best at some compute."""
    prepared = estimator(curves)
    best = prepared.best(np.ones(len(curves), bool))
    if best.sizes < FEWEST:
        raise UserError(
            f"{best.sizes} sizes are the best at some compute that smaller and larger models had reached as well; a "
            f"power law needs {FEWEST}: add sizes, or train those there are on more tokens"
        )
    laws = _laws(best)
    return Fit(laws.params, laws.tokens, laws.loss, best, tuple(curves), prepared)


def bootstrap(fitted: Fit, *, resamples: int = 100, seed: int = 0) -> Allocation | None:
    """The laws refitted to whole curves drawn with replacement, as laws of arrays [resamples]; fewer where a draw has
    too few sizes that are best, None where all have."""
    rng = np.random.default_rng(seed)
    count = len(fitted.curves)
    draws = (np.bincount(rng.integers(count, size=count), minlength=count) > 0 for _ in range(resamples))
    found = [_laws(best) for drawn in draws if (best := fitted.estimator.best(drawn)).sizes >= FEWEST]
    return stack(found) if len(found) > 1 else None


def _laws(best: Points) -> Allocation:
    some = np.unique(np.linspace(0, len(best.C) - 1, LOSSES).astype(int))
    laws = allocate(best.C, best.N, best.D, best.loss)
    return Allocation(laws.params, laws.tokens, allocate(*(v[some] for v in vars(best).values())).loss)


def _turn(x: Array, y: Array, a: int, b: int, c: int) -> float:
    """Positive where the way from a over b to c turns left."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))
