"""How well a law predicts runs larger than those it was fitted to: the score by which laws are compared, since nearly
any of them fits the runs it has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..laws import Array, L, Law
from .estimate import Estimate
from .fitting import fit
from .resample import bootstrap, scatter

RESAMPLES = 100


@dataclass(frozen=True)
class HeldOut:
    """Of `runs` held out, of `flops` from the least to the greatest: the root mean square `error` of the law fitted to
    the others, the `worst`, both relative where the target is positive, and how many were `inside` their own central
    interval of 90 percent (None: not known)."""

    runs: int
    flops: tuple[float, float]
    error: float
    worst: float
    inside: int | None


def largest(flops: Array, count: int, budgets: Array | None = None) -> NDArray[np.bool_]:
    """Which runs [runs] are of the `count` largest budgets; without `budgets` [runs], of the `count` tenths of all runs
    that took most compute."""
    if budgets is None:
        return np.asarray(flops >= np.quantile(flops, max(1 - count / 10, 0.0), method="lower"))
    known = np.unique(budgets[np.isfinite(budgets)])
    return np.isin(budgets, known[-count:])


def holdout(
    law: type[Law],
    inputs: Sequence[Array],
    target: Array,
    flops: Array,
    held: NDArray[np.bool_],
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
    **options: Any,
) -> HeldOut:
    """Fit the runs that are not `held`, predict those that are. `options` are those of `fit`. Raises `UserError` where
    the others do not determine the law."""
    estimate = without(law, inputs, target, held, groups=groups, seed=seed, **options)
    return score(estimate, inputs, target, flops, held)


def without(
    law: type[L],
    inputs: Sequence[Array],
    target: Array,
    held: NDArray[np.bool_],
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
    **options: Any,
) -> Estimate[L]:
    """The law fitted to runs that are not `held`."""
    seen = [v[~held] for v in inputs]
    fitted = fit(law, seen, target[~held], seed=seed, **options)
    kept = None if groups is None else np.asarray(groups)[~held]
    resampled = bootstrap(seen, target[~held], fitted, resamples=RESAMPLES, groups=kept, seed=seed)
    return Estimate(fitted.law, resampled, scatter(fitted, seen, target[~held]), {})


def score(
    estimate: Estimate[Law], inputs: Sequence[Array], target: Array, flops: Array, held: NDArray[np.bool_]
) -> HeldOut:
    """How far the estimate is off the runs that are `held`."""
    said, true = estimate.predict(*(v[held] for v in inputs)), target[held]
    wrong = np.log(said.value / true) if (target > 0).all() else said.value - true
    known = estimate.resampled is not None
    inside = int(((said.run_low <= true) & (true <= said.run_high)).sum()) if known else None
    spent = flops[held]
    return HeldOut(
        len(true),
        (float(spent.min()), float(spent.max())),
        float(np.sqrt(np.mean(wrong**2))),
        float(wrong[np.argmax(np.abs(wrong))]),
        inside,
    )
