"""The engine of every fit of a law: its constants, how far to trust them, and what they predict."""

from .estimate import Estimate, Interval, Prediction, from_json, to_json
from .fitting import Fit, errors, fit, fit_from, objective
from .holdout import HeldOut, holdout, largest, score, without
from .identify import Line, correlations, doubts, effects, fewest, line_of
from .minimise import Pull, huber, minimise
from .profile import Profile, profile
from .resample import FAR_STARTS, bootstrap, leverages, nothing_free, scatter
from .space import Space

__all__ = [
    "FAR_STARTS",
    "Estimate",
    "Fit",
    "HeldOut",
    "Interval",
    "Line",
    "Prediction",
    "Profile",
    "Pull",
    "Space",
    "bootstrap",
    "correlations",
    "doubts",
    "effects",
    "errors",
    "fewest",
    "fit",
    "fit_from",
    "from_json",
    "holdout",
    "huber",
    "largest",
    "leverages",
    "line_of",
    "minimise",
    "nothing_free",
    "objective",
    "profile",
    "scatter",
    "score",
    "to_json",
    "without",
]
