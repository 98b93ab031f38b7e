"""Emergence: where a metric of runs passes a level, how suddenly it rises with compute, and what its smooth counterpart
does meanwhile (Schaeffer, Miranda and Koyejo 2023, arXiv 2304.15004).

A metric of whole answers, such as the exact match of n tokens, is near the n-th power of the accuracy of one: it stays
at nothing and then leaps, while the loss falls evenly. Whether a leap is more than that shows beside the power, and
beside the loss.

Runs are arrays [runs]: FLOPs, held-out loss in nats, and a metric that is better when it is larger."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError, nearest

from ..records import Runs

Array = Any  # of numpy
FEWEST = 3  # runs on the way of which a rise can be told
ENDS = (0.1, 0.9)  # shares of a rise between which it is counted as made
SAME = 1.01  # ratio of compute within which runs had the same budget: whole steps never meet one exactly
RESAMPLES, LEVEL = 400, 90.0  # of the runs, for an interval of so many percent
POWER = re.compile(r"(?P<name>.+)\^(?P<n>[1-9]\d*)")


class Emergence(NamedTuple):
    """Of a metric: the loss and the FLOPs at which it passes a level, each with a central 90 % interval over resamples
    of the runs (nan: never, or from the first run on); of what share of the range of log FLOPs 10 to 90 % of its rise
    takes; and its emergence score."""

    loss: tuple[float, float, float]
    flops: tuple[float, float, float]
    share: float
    score: float


def frontier(flops: Array, loss: Array) -> Array:
    """The numbers of the runs that no run of as much compute (within 1 %) or less beats in loss, by compute."""
    order = np.lexsort((loss, flops))
    best = np.minimum.accumulate(loss[order])
    first = np.concatenate([[True], best[1:] < best[:-1]])
    reach = np.searchsorted(flops[order], SAME * flops[order], side="right") - 1
    return order[first & (best == best[reach])]


def score(values: Array) -> float:
    """How sudden the change of a metric over runs in order of scale is: (largest - least) over the square root of the
    median squared difference of neighbours, negative where it falls (Srivastava et al. 2022, arXiv 2206.04615, appendix
    B; Schaeffer et al., section 4). inf where most neighbours are equal."""
    step = float(np.sqrt(np.median(np.diff(values) ** 2)))
    change = float(np.ptp(values)) * np.sign(np.argmax(values) - np.argmin(values))
    return float(change / step) if step else float(np.inf * change) if change else 0.0


def rising(values: Array) -> Array:
    """The nearest values, by squares, that never fall (pool adjacent violators)."""
    pools: list[list[float]] = []  # mean, size
    for value in values:
        pools.append([float(value), 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return np.concatenate([[mean] * int(size) for mean, size in pools])


def passes(x: Array, values: Array, level: float) -> float:
    """The x, along which runs lie in order, at which `rising` values reach a level; between two runs on a straight
    line. nan where none does, or the first has."""
    up = rising(values)
    if not up[0] < level <= up[-1]:
        return float("nan")
    i = int(np.argmax(up >= level))
    return float(np.interp(level, up[i - 1 : i + 1], x[i - 1 : i + 1]))


def share(x: Array, values: Array) -> float:
    """Of the range of x, in which 10 to 90 % of the whole rise is made; nan of a metric that does not rise."""
    up = rising(values)
    if up[-1] <= up[0]:
        return float("nan")
    low, high = (passes(x, values, up[0] + end * (up[-1] - up[0])) for end in ENDS)
    return (high - low) / float(x[-1] - x[0])


def emergence(flops: Array, loss: Array, metric: Array, level: float) -> Emergence:
    """Along the compute those runs count that none beats (`frontier`), along the loss all of them."""

    def at(chosen: Array) -> tuple[float, float]:
        f, nats, m = flops[chosen], loss[chosen], metric[chosen]
        best, order = frontier(f, nats), np.argsort(-nats, kind="stable")
        return -passes(-nats[order], m[order], level), 10 ** passes(np.log10(f[best]), m[best], level)

    best = frontier(flops, loss)
    if len(best) < FEWEST:
        raise UserError(
            f"{len(best)} runs are better than all with less compute: a rise shows over {FEWEST} or more; give runs "
            "of other sizes or lengths, or more checkpoints"
        )
    rng = np.random.default_rng(0)
    drawn = np.array([at(np.sort(rng.integers(0, len(flops), len(flops)))) for _ in range(RESAMPLES)])
    ends = [50 - LEVEL / 2, 50 + LEVEL / 2]
    with np.errstate(all="ignore"):
        known = [x[np.isfinite(x)] for x in drawn.T]
        intervals = [np.percentile(x, ends).tolist() if len(x) > RESAMPLES / 2 else [np.nan] * 2 for x in known]
    (by_loss, by_flops), x = at(np.arange(len(flops))), np.log10(flops[best])
    return Emergence((by_loss, *intervals[0]), (by_flops, *intervals[1]), share(x, metric[best]), score(metric[best]))


def metric_of(runs: Runs, name: str) -> Array:
    """A column of a table of runs, or `name^n`, its n-th power: of the accuracy of one token that of n, were they right
    and wrong independently. Raises `UserError` for what is no share."""
    power = POWER.fullmatch(name)
    column, n = (power["name"], int(power["n"])) if power else (name, 1)
    if column not in runs:
        raise UserError(f"--metrics={name}: the runs have no column {column!r}{nearest(column, runs)}")
    values = runs[column]
    if values.dtype.kind != "f" or not np.all((values >= 0) & (values <= 1)):
        raise UserError(f"--metrics={name}: column {column!r} must hold a share between 0 and 1 for each run")
    return values**n


def of_checkpoints(records: list[dict[str, Any]]) -> Runs:
    """The records of `scaling.dynamics.measure` as such runs; exact matches of one token are its accuracy."""
    runs: dict[str, Array] = {name: np.array([r[name] for r in records], np.float64) for name in ("flops", "tokens")}
    runs["loss"] = np.array([r["loss"]["held-out"] for r in records])
    for n in records[0]["exact_match"]:
        name = "accuracy" if int(n) == 1 else f"exact_match_{n}"
        runs[name] = np.array([r["exact_match"][n] for r in records])
    return runs


def described(runs: Runs, names: list[str], level: float) -> dict[str, Emergence]:
    """`emergence` of each metric, and of the loss itself, as what all of them are thresholds on: `loss` passes no
    level, but takes a share of the compute and has a score as they do."""
    flops, loss = runs["flops"], runs["loss"]
    found = {name: emergence(flops, loss, metric_of(runs, name), level) for name in names}
    return found | {"loss": emergence(flops, loss, -loss, np.inf)}


def lines(found: Mapping[str, Emergence], level: float) -> list[str]:
    """What was found, a line each."""
    told = []
    for name, e in found.items():
        where = f"never passes {level:g}, or does from the first run on"
        if name == "loss":
            where = "the smooth counterpart"
        elif np.isfinite(e.loss[0]):
            nats, compute = ("{:.4g} [{:.4g}, {:.4g}]".format(*of) for of in (e.loss, e.flops))
            where = f"passes {level:g} at a loss of {nats}, at {compute} FLOPs"
        takes = f"its rise takes {100 * e.share:.0f} % of log FLOPs"
        told.append(f"{name}: {where}; {takes}, emergence score {e.score:.1f}")
    return told
