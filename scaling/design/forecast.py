"""What a design would tell: the runs are simulated from a law that may hold, and fitted as real ones are."""

from typing import Any

import numpy as np

from ..engine import Interval, minimise
from ..engine import Space as Constants
from ..engine.estimate import interval
from ..laws import Array, Frontier
from .precision import Noise

FAR_STARTS = 1  # of each fit, besides the law that the runs come from
TOLERANCE = 1e-9  # of the objective: far finer than the noise moves it
VAGUE = 0.03  # error of a published law's log losses on other data and models, once its scale is right
OTHERS = 12  # laws besides the likeliest by which a design is judged


def simulated(
    law: Frontier,
    N: Array,
    D: Array,
    trunks: Any,
    noise: Noise,
    *,
    delta: float,
    replications: int = 200,
    seed: int = 0,
) -> Frontier:
    """The laws that would be found, as one of arrays [replications], from runs [runs] of so many params, tokens and of
    these trunks, whose losses are off this law's by noise."""
    rng = np.random.default_rng(seed)
    losses = law.predict(N, D) * np.exp(noise.draw(rng, replications, trunks))
    constants = Constants(type(law))
    own = np.tile(constants.point(law), (replications, 1))
    far = constants.starts(rng, FAR_STARTS * replications, law.predict(N, D), [N, D])
    points, values = minimise(
        constants,
        [N, D],
        np.tile(losses, (1 + FAR_STARTS, 1)),
        np.concatenate([own, far]),
        delta=delta,
        tolerance=TOLERANCE,
    )
    best = np.argmin(values.reshape(-1, replications), axis=0)
    return constants.build(points.reshape(1 + FAR_STARTS, replications, -1)[best, np.arange(replications)].T)


def intervals(law: Frontier, found: Frontier, flops: float, level: float) -> dict[str, Interval]:
    """Of each decision of a law at so many FLOPs: what the middle `level` percent of those found say. Laws without a
    frontier say nothing."""
    said = found.decisions(flops)
    return {name: interval(value, said[name], level) for name, value in law.decisions(flops).items()}


def others(law: Frontier, N: Array, D: Array, seed: int = 0) -> tuple[Frontier, ...]:
    """Some laws that may hold if this one is right about these runs to within `VAGUE`."""
    return some_of(
        simulated(law, N, D, np.arange(len(N)), Noise(VAGUE), delta=np.inf, replications=3 * OTHERS, seed=seed)
    )


def some_of(laws: Frontier, number: int = OTHERS) -> tuple[Frontier, ...]:
    """The first few of a law of arrays [resamples] that have a frontier and all their terms, each by itself."""
    with np.errstate(divide="ignore"):  # of a constant that went to zero, which is left out
        whole = np.isfinite(Constants(type(laws)).point(laws)).all(axis=-1)
    kept = np.flatnonzero(laws.sound & whole)[:number]
    return tuple(type(laws)(**{k: float(v[i]) for k, v in laws.constants().items()}) for i in kept)
