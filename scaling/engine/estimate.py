"""What is known of a law after a fit: its constants, how they may be off, and how runs scatter about it; and what that
says of runs not yet made and of compute not yet spent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm.core.formats import FIT, KEY

from ..laws import Array, L, Law


class Interval(NamedTuple):
    """A value, and between what it lies; nan where that is not known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """Of the target, arrays of the shape of the inputs: the `value` that the law expects, between what that lies
    (`low`, `high`: the error of the fit), and between what one more run would (`run_low`, `run_high`: that and the
    scatter of runs)."""

    value: Array
    low: Array
    high: Array
    run_low: Array
    run_high: Array


@dataclass(frozen=True, eq=False)
class Estimate(Generic[L]):
    """A fitted law; the laws that it may be as well, arrays [resamples] (None: not known); the errors of single runs
    that are not in the fit [runs], in the space of the law's residual; and the runs' least and greatest of every column
    that the law reads, and of 6 N D (`flops`) where it has a frontier."""

    law: L
    resampled: L | None
    scatter: Array
    ranges: Mapping[str, tuple[float, float]]

    @property
    def noise(self) -> float:
        """A standard deviation of `scatter` that wild runs hardly move: what 68 % of the errors stay within."""
        return float(np.quantile(np.abs(self.scatter), 0.6827))

    def predict(self, *inputs: ArrayLike, level: float = 90.0) -> Prediction:
        """The target at `inputs`, which broadcast against one another, and its central intervals of `level` percent."""
        points = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in inputs))
        shape = points[0].shape
        flat = [v.reshape(-1) for v in points]
        into, out = (np.log, np.exp) if self.law.residual == "log" else (np.asarray, np.asarray)
        value = into(np.broadcast_to(self.law.predict(*flat), flat[0].shape))
        laws = self.law if self.resampled is None else self.resampled
        fits = into(columns(laws).predict(*flat)).T  # [points, resamples]
        ends = [50 - level / 2, 50 + level / 2]
        low, high = np.nanpercentile(fits, ends, axis=1)
        runs = [np.nanpercentile(fit[:, None] + self.scatter, ends) for fit in fits]
        run_low, run_high = np.reshape(runs, (-1, 2)).T
        return Prediction(*(out(v).reshape(shape) for v in (value, low, high, run_low, run_high)))

    def constants(self, level: float = 90.0) -> dict[str, Interval]:
        """Each constant with its central interval of `level` percent."""
        resampled = {} if self.resampled is None else self.resampled.constants()
        return {name: interval(v, resampled.get(name), level) for name, v in self.law.constants().items()}

    def decisions(self, flops: float, level: float = 90.0) -> dict[str, Interval]:
        """What the law says to do with so much compute (`Law.decisions`), with intervals."""
        resampled = {} if self.resampled is None else self.resampled.decisions(flops)
        return {name: interval(v, resampled.get(name), level) for name, v in self.law.decisions(flops).items()}


def interval(value: Any, resampled: Any, level: float) -> Interval:
    """The central `level` percent of resampled values, those without one (nan) left out."""
    if resampled is None or np.isfinite(resampled).sum() < 2:  # one spans no interval
        return Interval(float(value), np.nan, np.nan)
    low, high = np.nanpercentile(resampled, [50 - level / 2, 50 + level / 2])
    return Interval(float(value), float(low), float(high))


def columns(laws: L) -> L:
    """Laws of arrays [resamples] as arrays [resamples, 1], which broadcast against inputs."""
    return type(laws)(**{name: np.reshape(v, (-1, 1)) for name, v in laws.constants().items()})


def to_json(estimate: Estimate[Law], name: str) -> dict[str, Any]:
    """All of it as JSON holds it, the law by its `name` in `LAWS`; `from_json` reads it back."""
    resampled = estimate.resampled
    return {
        KEY: FIT.number,
        "law": name,
        "constants": {key: float(v) for key, v in estimate.law.constants().items()},
        "resampled": None
        if resampled is None
        else {k: np.asarray(v).tolist() for k, v in resampled.constants().items()},
        "noise": estimate.noise,
        "scatter": estimate.scatter.tolist(),
        "ranges": {key: list(v) for key, v in estimate.ranges.items()},
    }


def from_json(saved: Mapping[str, Any], law: type[L]) -> Estimate[L]:
    resampled = saved["resampled"]
    return Estimate(
        law(**saved["constants"]),
        None if resampled is None else law(**{key: np.array(v) for key, v in resampled.items()}),
        np.array(saved["scatter"]),
        {key: (low, high) for key, (low, high) in saved["ranges"].items()},
    )
