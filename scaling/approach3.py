"""Approach 3: a law fitted to runs of any shape, and all that is said of it (Hoffmann et al. 2022, section 3.3; any law
of `scaling.laws`, by `scaling.engine`)."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm.core.errors import UserError, nearest

from . import engine
from .laws import FLOPS_PER_PARAM_TOKEN, LAWS, Array, Frontier, Law
from .records import Runs

# Error of the largest runs, in units of the scatter about the law, beyond which it is said to bend away from them.
BENT = 3.0


@dataclass(frozen=True)
class Settings:
    """How to fit: see the flags of `scaling.fit`."""

    delta: float | None = None  # None: the law's own
    starts: int = 128
    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    resamples: int = 400
    run: str = ""  # column that names a row's run
    holdout: int = 1  # largest budgets
    level: float = 95.0  # percent
    seed: int = 0
    force: bool = False

    def options(self) -> dict[str, Any]:
        """Of `engine.fit`."""
        names = ("delta", "starts", "fixed", "tied", "seed", "force")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A law fitted without the runs `held` [runs], and how it predicts them."""

    estimate: engine.Estimate[Law]
    held: NDArray[np.bool_]
    score: engine.HeldOut


@dataclass(frozen=True)
class Study:
    """A fit and what is known of it. `profiles` are of the constants, and of the decisions at each compute; `held` is
    None where no largest runs could be held out, for the reason that `notes` give."""

    fitted: engine.Fit[Law]
    estimate: engine.Estimate[Law]
    profiles: Mapping[str, engine.Profile]
    decided: Mapping[float, Mapping[str, engine.Profile]]
    correlations: Array
    held: HeldOut | None
    notes: Sequence[str]


def study(law: type[Law], runs: Runs, compute: Sequence[float], settings: Settings) -> Study:
    """Fit a law to runs that have the columns that it reads, and look at the fit from every side."""
    inputs, target = [runs[name] for name in law.reads], runs[law.target]
    groups = runs[settings.run] if settings.run else None
    fitted = engine.fit(law, inputs, target, **settings.options())
    notes = [*engine.doubts(fitted.space, fitted.law, inputs, target), *_counted(law, runs)]
    resampled = None
    if settings.resamples:
        resampled = engine.bootstrap(
            inputs, target, fitted, resamples=settings.resamples, groups=groups, seed=settings.seed
        )
        if resampled is None:
            notes.append(engine.nothing_free(fitted.space))
    if compute:
        notes += _unsound(fitted.law, resampled, compute[0])
    columns = dict(zip(law.reads, inputs, strict=True))
    if issubclass(law, Frontier):
        columns["flops"] = FLOPS_PER_PARAM_TOKEN * columns["params"] * columns["tokens"]
    ranges = {name: (float(v.min()), float(v.max())) for name, v in columns.items()}
    estimate = engine.Estimate(fitted.law, resampled, engine.scatter(fitted, inputs, target), ranges)
    profiles: dict[str, engine.Profile] = {}
    decided: dict[float, dict[str, engine.Profile]] = {}
    if resampled is not None:
        free = fitted.space.free
        profiles = engine.profile(
            fitted, inputs, target, lambda law: {name: getattr(law, name) for name in free}, settings.level
        )
        for C in compute:
            decided[C] = engine.profile(fitted, inputs, target, functools.partial(_decide, C), settings.level)
        notes += _endless(profiles | (decided[compute[0]] if compute else {}))
    held = None
    if settings.holdout:
        try:
            held = hold_out(law, runs, settings)
        except UserError as e:
            notes.append(f"nothing held out: {e}")
    off = 0.0 if held is None else held.score.error / max(estimate.noise, 1e-12)
    if off > BENT:
        notes.append(
            f"held out, the largest runs are off by {off:.2g} times the scatter about the law: trust no extrapolation, "
            "and try another law"
        )
    correlated = engine.correlations(fitted.space, fitted.law, inputs)
    return Study(fitted, estimate, profiles, decided, correlated, held, notes)


@dataclass(frozen=True)
class Score:
    """How a law does among others: how many constants it chose, the scatter of runs about it, and its error on runs
    held out, None for the reason `why`."""

    constants: int | None
    noise: float | None
    held: engine.HeldOut | None
    why: str = ""


def compare(laws: Sequence[str], runs: Runs, settings: Settings) -> dict[str, Score]:
    """Laws by name, those that predict the held-out runs best first. Raises `UserError` if none can be fitted."""
    scores = {name: _score(LAWS[name], runs, settings) for name in laws}
    if all(score.constants is None for score in scores.values()):
        raise UserError(f"none of the laws can be fitted; {laws[0]}: {scores[laws[0]].why}")
    ranked = sorted(scores.items(), key=lambda item: np.inf if item[1].held is None else item[1].held.error)
    return dict(sorted(ranked, key=lambda item: item[1].constants is None))


def _score(law: type[Law], runs: Runs, settings: Settings) -> Score:
    inputs, target = [runs[name] for name in law.reads], runs[law.target]
    try:
        fitted = engine.fit(law, inputs, target, **settings.options())
    except UserError as e:
        return Score(None, None, None, str(e))
    noise = engine.Estimate(fitted.law, None, engine.scatter(fitted, inputs, target), {}).noise
    try:
        return Score(len(fitted.space.free), noise, hold_out(law, runs, settings).score)
    except UserError as e:
        return Score(len(fitted.space.free), noise, None, str(e))


def needs(laws: Sequence[str]) -> list[str]:
    """Columns that the runs must have."""
    return list(dict.fromkeys(name for law in laws for name in (*LAWS[law].reads, LAWS[law].target)))


def _decide(flops: float, law: Law) -> dict[str, Any]:
    return law.decisions(flops)


def _answers(law: Law, flops: float) -> Any:
    """Which laws decide on numbers, bool [resamples]; True where there is nothing to decide."""
    return np.all([np.isfinite(v) for v in law.decisions(flops).values()], axis=0)


def _endless(profiles: Mapping[str, engine.Profile]) -> list[str]:
    """Which profiles have no lower, or no upper, end, and why."""
    notes = []
    for side, end in enumerate(("lower", "upper")):
        if open_ones := [f"{name} ({p.why[side]})" for name, p in profiles.items() if p.why[side]]:
            notes.append(f"profiles without {end} end: {'; '.join(open_ones)}")
    return notes


def _counted(law: type[Law], runs: Runs) -> list[str]:
    if not issubclass(law, Frontier) or "flops" not in runs:
        return []
    counted = float(np.median(runs["flops"] / (FLOPS_PER_PARAM_TOKEN * runs["params"] * runs["tokens"])))
    if abs(counted - 1) <= 0.05:
        return []
    return [f"the median run's flops are {counted:.3g} x 6 N D; sizes below are for C = 6 N D"]


def _unsound(law: Law, resampled: Law | None, flops: float) -> list[str]:
    if not np.all(_answers(law, flops)):
        return ["the fitted law has no optimum: it says that larger models, or more data, do not help"]
    lost = 0 if resampled is None else int(np.sum(~np.asarray(_answers(resampled, flops), bool)))
    if resampled is None or not lost:
        return []
    drawn = len(next(iter(resampled.constants().values())))
    return [f"{lost} of {drawn} resamples have no optimum and are left out: the runs hardly identify it"]


def hold_out(law: type[Law], runs: Runs, settings: Settings) -> HeldOut:
    """Raises `UserError` where the runs left do not determine the law."""
    inputs, target = [runs[name] for name in law.reads], runs[law.target]
    groups = runs[settings.run] if settings.run else None
    held = _largest(runs, settings)
    estimate = engine.without(law, inputs, target, held, groups=groups, **settings.options())
    return HeldOut(estimate, held, engine.score(estimate, inputs, target, runs["flops"], held))


def _largest(runs: Runs, settings: Settings) -> NDArray[np.bool_]:
    """Which runs [runs] are held out."""
    if "flops" not in runs:
        raise UserError("the runs have no column 'flops' that would say which are the largest")
    budgets = runs.get("budget")
    if budgets is not None and budgets.dtype.kind != "f":
        budgets = None
    return engine.largest(runs["flops"], settings.holdout, budgets)


def compute_of(runs: Runs) -> float:
    """FLOPs of the largest run, as frontiers count them (6 N D) where that can be; nan if nothing says."""
    if "params" in runs and "tokens" in runs:
        return float(np.max(FLOPS_PER_PARAM_TOKEN * runs["params"] * runs["tokens"]))
    return float(np.max(runs["flops"])) if "flops" in runs else float("nan")


def check_columns(law: type[Law], name: str, runs: Runs, source: str, settings: Settings) -> None:
    """Raises `UserError` for a column that the law needs, or the settings name, and the runs lack."""
    for column in (*law.reads, law.target):
        if column not in runs:
            raise UserError(
                f"law {name} reads the column {column!r}, which {source} lacks{nearest(column, runs)}: rename one "
                f"with --columns={column}=NAME"
            )
    if settings.run and settings.run not in runs:
        raise UserError(f"--run={settings.run}: {source} has no such column{nearest(settings.run, runs)}")
