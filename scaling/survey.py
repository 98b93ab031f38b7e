"""All that the runs of a sweep say of compute: approaches 1, 2 and 3 side by side, the largest runs held out, and why
what is missing cannot be had."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lm.core.errors import UserError

from . import approach1, approach2, approach3
from .interpolation import INTERPOLATIONS
from .laws import LAWS, Frontier
from .power import Allocation
from .records import Runs

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Isoflop:
    """Approach 2 by one interpolation: the fit, its draws and its bias (None: not known)."""

    name: str
    fit: approach2.Fit
    draws: Allocation | None
    bias: approach2.Bias | None


@dataclass(frozen=True, eq=False)
class Envelope:
    """Approach 1 by one estimator, and its draws."""

    name: str
    fit: approach1.Fit
    draws: Allocation | None


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found of `runs`; `missing` says by name why the rest was not."""

    runs: Runs
    settings: approach3.Settings
    laws: Mapping[str, approach3.Study]
    isoflops: Sequence[Isoflop]
    envelopes: Sequence[Envelope]
    missing: Mapping[str, str]

    @property
    def held_out(self) -> dict[str, approach3.HeldOut]:
        """By law, best predicted first."""
        held = {name: law.held for name, law in self.laws.items() if law.held is not None}
        return dict(sorted(held.items(), key=lambda item: item[1].score.error))

    @property
    def allocations(self) -> dict[str, tuple[Allocation, Allocation | None]]:
        """Approaches 1 and 2 by name, with their draws; each approach 2 again less its bias, where that is known."""
        found: dict[str, tuple[Allocation, Allocation | None]] = {}
        for envelope in self.envelopes:
            found[f"1, {envelope.name}"] = envelope.fit, envelope.draws
        for isoflop in self.isoflops:
            found[f"2, {isoflop.name}"] = isoflop.fit, isoflop.draws
            if isoflop.bias is not None:
                draws = None if isoflop.draws is None else isoflop.bias.corrected(isoflop.draws)
                found[f"2, {isoflop.name}, less its bias"] = isoflop.bias.corrected(isoflop.fit), draws
        return found


class _Attempts:
    """Calls what may find the runs lacking, and keeps what it then says."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def __call__(self, what: str, how: Callable[..., T], *inputs: Any) -> list[T]:
        try:
            return [how(*inputs)]
        except UserError as e:
            self.missing[what] = str(e)
            return []


def survey(
    runs: Runs,
    laws: Sequence[str],
    compute: Sequence[float],
    settings: approach3.Settings,
    known: Mapping[str, approach3.Study] | None = None,
) -> Survey:
    """Fit everything, laws by their names in `LAWS` but those whose study is `known`, of the same runs, compute and
    settings. Raises `UserError` where nothing can be had, for the reason of the first."""
    attempt = _Attempts()
    fitted = dict(known or {})
    for name in laws:
        if name not in fitted:
            for found in attempt(f"approach 3, {name}", _study, runs, name, compute, settings):
                fitted[name] = found
    frontier = next((s.fitted.law for s in fitted.values() if isinstance(s.fitted.law, Frontier)), None)
    isoflops = [
        f for name in INTERPOLATIONS for f in attempt(f"approach 2, {name}", isoflop, runs, name, frontier, settings)
    ]
    envelopes = [
        f for name in approach1.ESTIMATORS for f in attempt(f"approach 1, {name}", envelope, runs, name, settings)
    ]
    if not fitted and not isoflops and not envelopes:
        raise UserError(next(iter(attempt.missing.values())))
    return Survey(runs, settings, fitted, isoflops, envelopes, attempt.missing)


def isoflop(runs: Runs, name: str, law: Frontier | None, settings: approach3.Settings) -> Isoflop:
    """Approach 2, and its bias if the runs follow `law`. Raises `UserError` without budgets that have a minimum."""
    if "budget" not in runs or runs["budget"].dtype.kind != "f" or not (runs["budget"] > 0).any():
        raise UserError("the runs have no column 'budget', of FLOPs that groups of them share; name it with --columns")
    kept = runs["budget"] > 0  # False for nan: a run outside the grid
    data = (runs[key][kept] for key in ("params", "tokens", "loss", "budget"))
    fitted = approach2.fit(*data, interpolation=INTERPOLATIONS[name])
    draws = (
        approach2.bootstrap(fitted, resamples=settings.resamples, seed=settings.seed) if settings.resamples else None
    )
    return Isoflop(name, fitted, draws, None if law is None else approach2.bias(fitted, law.predict))


def envelope(runs: Runs, name: str, settings: approach3.Settings) -> Envelope:
    """Approach 1. Raises `UserError` without three sizes that are best at some compute."""
    curves = approach1.curves_of(
        runs["params"], runs["tokens"], runs["loss"], runs["flops"], runs[settings.run or "params"]
    )
    fitted = approach1.fit(approach1.ESTIMATORS[name], curves)
    return Envelope(name, fitted, approach1.bootstrap(fitted, resamples=settings.resamples, seed=settings.seed))


def _study(runs: Runs, name: str, compute: Sequence[float], settings: approach3.Settings) -> approach3.Study:
    approach3.check_columns(LAWS[name], name, runs, "the table", settings)
    return approach3.study(LAWS[name], runs, compute, settings)
