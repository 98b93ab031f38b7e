"""How far to trust a fit: the law refitted under random weights of the runs.

Draws with replacement leave out, in a few of a hundred draws, the only runs that show a term; random weights never do
(the Bayesian bootstrap, Rubin 1981). Squared errors of the runs that pull the fit most are smaller at the fit than
they were before it, by 1 - leverage, which makes plain intervals of a few dozen runs too narrow: their weights vary by
as much more (the correction HC3 of MacKinnon & White 1985). Absolute errors count by their sign and need none, so that
the correction is in proportion to the runs within delta.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..laws import Array, L
from .fitting import SEARCH, Fit, errors
from .identify import effects, fewest, points_of
from .minimise import minimise
from .space import Space

FAR_STARTS = 2  # of each resample, besides the fit itself
TOLERANCE = 1e-9
MOST_LEVERAGE = 2 / 3  # counted; beyond, hardly a weight would be left


def bootstrap(
    inputs: Sequence[ArrayLike],
    target: ArrayLike,
    fitted: Fit[L],
    *,
    resamples: int = 100,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> L | None:
    """The laws fitted under random weights of the runs, as one law of arrays [resamples].

    Each resample starts from the fit and from `FAR_STARTS` random points. `groups` [runs] names the training
    run that a row belongs to when several rows are checkpoints of one: those are weighted together, since alone they
    would make the intervals far too narrow. None where the runs say nothing of their own scatter (see
    `nothing_free`).
    """
    space, data, goal = fitted.space, [np.asarray(v, np.float64) for v in inputs], np.asarray(target, np.float64)
    _, group = np.unique(np.arange(len(goal)) if groups is None else np.asarray(groups), return_inverse=True)
    points, count = points_of(data), int(group.max()) + 1
    if max(len(np.unique(points[group != g])) for g in range(count)) < fewest(space):
        return None
    rng = np.random.default_rng(seed)
    within = np.mean(np.abs(errors(fitted.law, data, goal)) <= fitted.delta)
    pulls = np.bincount(group, leverages(space, fitted.law, data))
    variance = (1 - within * np.minimum(pulls, MOST_LEVERAGE)) ** -2
    weights = rng.gamma(1 / variance, variance, (resamples, count))[:, group]
    own = np.tile(space.point(fitted.law), (resamples, 1))
    starts = np.concatenate([own, space.starts(rng, FAR_STARTS * resamples, goal, data)])
    every = np.tile(weights, (1 + FAR_STARTS, 1))
    found, values = minimise(space, data, goal, starts, weights=every, delta=fitted.delta, tolerance=SEARCH)
    best = found[np.argmin(values.reshape(-1, resamples), axis=0) * resamples + np.arange(resamples)]
    best, _ = minimise(space, data, goal, best, weights=weights, delta=fitted.delta, tolerance=TOLERANCE)
    return space.build(best.T)


def nothing_free(space: Space[Any]) -> str:
    """What to say where `bootstrap` gives none."""
    named = " and ".join(space.law.reads)
    return (
        f"no intervals: without any one of its runs the law has fewer than {fewest(space)} pairs of {named}, so that "
        "nothing is free to vary; more runs show how far to trust it"
    )


def leverages(space: Space[L], law: L, inputs: Sequence[Array]) -> Array:
    """How much of each run's own error the fit takes up, were it of least squares: [runs], from 0 to 1, whose sum is
    the number of constants."""
    rows, values, _ = np.linalg.svd(effects(space, law, inputs), full_matrices=False)
    return np.asarray((rows[:, values > 1e-12 * values[0]] ** 2).sum(1))


def scatter(fitted: Fit[L], inputs: Sequence[ArrayLike], target: ArrayLike) -> Array:
    """The errors that runs of the same inputs would have if they were not among those fitted, in order [runs]: those
    of the fit, less what it took up."""
    data = [np.asarray(v, np.float64) for v in inputs]
    kept = 1 - np.minimum(leverages(fitted.space, fitted.law, data), MOST_LEVERAGE)
    return np.sort(-errors(fitted.law, data, target) / np.sqrt(kept))
