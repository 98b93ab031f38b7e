"""Fit a law to runs of any shape: approach 3 of Hoffmann et al. 2022 (section 3.3), for any `scaling.laws.Law`.

The objective is theirs: the sum over runs of Huber_delta of the error, in the logarithm where the law says so. Many
random starts are brought near a minimum, and the best of them to the last digits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import ArrayLike

from ..laws import Array, L, Law
from .identify import check_determined, check_runs
from .minimise import huber, minimise
from .space import Space

SEARCH, POLISH = 1e-5, 1e-14  # gain of a step, relative to the objective, below which a search ends
POLISHED = 8  # of the best starts


@dataclass(frozen=True)
class Fit(Generic[L]):
    """A fitted law, the sum of Huber losses there, how many of `starts` came within 0.1 % of that sum, and which
    constants were free."""

    law: L
    objective: float
    delta: float
    runs: int
    starts: int
    reached: int
    space: Space[L]


def errors(law: Law, inputs: Sequence[ArrayLike], target: ArrayLike) -> Array:
    """Of each run, in the space of the law's residual: [runs], or [resamples, runs] for a law of arrays [resamples,
    1]."""
    predicted = law.predict(*(np.asarray(v, np.float64) for v in inputs))
    target = np.asarray(target, np.float64)
    return np.log(predicted) - np.log(target) if law.residual == "log" else np.asarray(predicted - target)


def objective(law: Law, inputs: Sequence[ArrayLike], target: ArrayLike, delta: float | None = None) -> float:
    """The sum over runs of Huber_delta of the errors (delta: the law's own, unless given): what `fit` minimises, for
    comparing any two laws."""
    return float(huber(errors(law, inputs, target), law.delta if delta is None else delta).sum())


def fit(
    law: type[L],
    inputs: Sequence[ArrayLike],
    target: ArrayLike,
    *,
    delta: float | None = None,
    starts: int = 128,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    seed: int = 0,
    force: bool = False,
) -> Fit[L]:
    """The best law found from `starts` random starts. `inputs` are what `law.reads` names, as arrays [runs], and so is
    `target`; a constant of `fixed` keeps its value, one of `tied` ({"alpha": "beta"}) that of another.

    Raises `UserError` for runs that cannot determine the constants: too few, and, unless `force`, with N and D
    that cannot be told apart, over too narrow a range, or that other constants would fit as well.
    """
    space = Space(law, tuple((fixed or {}).items()), tuple((tied or {}).items()))
    data = [np.asarray(v, np.float64) for v in inputs]
    goal = np.asarray(target, np.float64)
    check_runs(space, data, goal, force)
    kink = law.delta if delta is None else delta
    first = space.starts(np.random.default_rng(seed), starts, goal, data)
    found = fit_from(space, first, data, goal, kink)
    if not force:
        check_determined(space, found.law, data)
    return found


def fit_from(space: Space[L], starts: Array, inputs: Sequence[Array], target: Array, delta: float) -> Fit[L]:
    """`fit` from starts [starts, free] of one's own."""
    points, values = minimise(space, inputs, target, starts, delta=delta, tolerance=SEARCH)
    best = np.argsort(values)[:POLISHED]
    polished, least = minimise(space, inputs, target, points[best], delta=delta, tolerance=POLISH, exact=True)
    law = space.build([float(v) for v in polished[np.argmin(least)]])
    found = law.__class__(**{name: float(v) for name, v in law.constants().items()})
    # Noise-free runs end at rounding error, where 0.1 % means nothing: residuals of delta / 1e5 count as zero.
    nothing = 0.5e-10 * len(target) * min(delta, 1.0) ** 2
    reached = int(np.sum(values <= 1.001 * least.min() + nothing))
    return Fit(found, objective(found, inputs, target, delta), delta, len(target), len(starts), reached, space)
