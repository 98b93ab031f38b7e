"""Which runs to make next: ours against random, cheapest-first and D-optimal choice, on public sets of runs.

    python -m benchmarks.selection --data=../shared/data/scaling            a few minutes on two cores

The most expensive tenth of a set is held out and predicted. Every way starts from the cheapest runs (`START` per
constant) and goes on until it has spent 10 % or 30 % of what all others cost, 6 N D a run. The table gives the root
mean square error of log loss over the runs held out, in percent: the median over seeds, and the worst of them.

`active` is the idea of arXiv 2604.22753, `refine` is `python -m scaling.plan refine`: both are asked for the losses of
the runs held out, and see neither those nor the ones of runs not yet made.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaling import engine
from scaling.design.forecast import some_of
from scaling.design.optimal import Made, optimal
from scaling.design.precision import Noise, rows
from scaling.design.space import Design, Space
from scaling.ladder import Rung
from scaling.laws import Array, Chinchilla, Law
from scaling.records import read_runs

SETS = {
    "epoch_chinchilla": ({}, ["in_fit_240=1"]),
    "misfitting_runs": ({}, []),
    "gadre_overtrain, C4": ({"loss": "loss_c4_val"}, ["train_dataset=c4_original"]),
    "datablations_c4, one epoch": ({}, []),
}
SHARES = (0.1, 0.3)
START = 2  # runs per constant
GROWTH = 1.25  # runs are chosen anew when there are so many times more of them
STARTS, RESAMPLES = 64, 60
TOLERANCE = 1e-9
CONSTANTS = engine.Space(Chinchilla)
COST_POWER = (
    0.4  # of the cost, over which a gain counts in arXiv 2604.22753: over the cost itself, only small runs count
)


class Known:
    """The pool (N, D, loss) [runs], the runs held out, and which of the pool were made. Fits weigh the others by zero,
    so that one program serves them all."""

    def __init__(self, pool: tuple[Array, ...], target: tuple[Array, ...], budget: float) -> None:
        self.pool, self.target, self.budget = pool, target, budget
        self.costs = 6 * pool[0] * pool[1]
        self.made: list[int] = []
        self.add([int(i) for i in np.argsort(self.costs)[: START * len(CONSTANTS.free)]])

    @property
    def left(self) -> float:
        return self.budget - float(self.costs[self.made].sum())

    @property
    def free(self) -> np.ndarray:
        """Those not made yet that can be paid for."""
        free = np.ones(len(self.costs), bool)
        free[self.made] = False
        return np.flatnonzero(free & (self.costs <= self.left))

    def add(self, some: list[int], most: int | None = None) -> int:
        """Makes those that can be paid for; returns how many."""
        before = len(self.made)
        for i in some[:most]:
            if self.costs[i] <= self.left:
                self.made.append(i)
        return len(self.made) - before

    def fit(self) -> Chinchilla:
        N, D, loss = (v[self.made] for v in self.pool)
        starts = CONSTANTS.starts(np.random.default_rng(0), STARTS, loss, [N, D])
        points, values = self._minima(starts, np.ones((STARTS, len(self.costs))))
        best = CONSTANTS.build(points[np.argmin(values)])
        return Chinchilla(**{k: float(v) for k, v in best.constants().items()})

    def resampled(self, law: Law, rng: np.random.Generator) -> Chinchilla:
        """Fits under random weights of the runs, as one law of arrays [resamples]."""
        weights = rng.exponential(size=(RESAMPLES, len(self.costs)))
        own = np.tile(CONSTANTS.point(law), (RESAMPLES, 1))
        return CONSTANTS.build(self._minima(own, weights)[0].T)

    def _minima(self, starts: Array, weights: Array) -> tuple[Array, Array]:
        made = np.zeros(len(self.costs))
        made[self.made] = 1
        N, D, loss = self.pool
        return engine.minimise(CONSTANTS, [N, D], loss, starts, weights=made * weights, delta=1e-3, tolerance=TOLERANCE)

    def noise(self, law: Law) -> float:
        """Of a run, in log loss."""
        N, D, loss = (v[self.made] for v in self.pool)
        free = max(len(loss) - len(CONSTANTS.free), 1)
        return max(float(np.sqrt((engine.errors(law, [N, D], loss) ** 2).sum() / free)), 1e-3)

    def error(self) -> float:
        N, D, loss = self.target
        return float(100 * np.sqrt((engine.errors(self.fit(), [N, D], loss) ** 2).mean()))


Choose = Callable[[Known, np.random.Generator], list[int]]
"""From what is known to further runs, in order."""


def at_random(known: Known, rng: np.random.Generator) -> list[int]:
    return rng.permutation(known.free).tolist()


def cheapest(known: Known, rng: np.random.Generator) -> list[int]:
    return sorted(known.free.tolist(), key=lambda i: known.costs[i])


def d_optimal(known: Known, rng: np.random.Generator) -> list[int]:
    """By the determinant of the information at the present fit, per power of the cost."""
    free = known.free
    jac = rows(known.fit(), *known.pool[:2])
    chosen, order = list(known.made), []
    while len(order) < min(len(known.made), len(free)):
        covariance = np.linalg.inv(jac[chosen].T @ jac[chosen] + 1e-9 * np.eye(jac.shape[1]))
        worth = np.log1p(np.einsum("nk,km,nm->n", jac[free], covariance, jac[free])) / known.costs[free] ** COST_POWER
        order.append(int(free[np.argmax(np.where(np.isin(free, order), -1, worth))]))
        chosen.append(order[-1])
    return order


def active(known: Known, rng: np.random.Generator) -> list[int]:
    """By what a run's loss would tell of those asked: over an ensemble of fits, the part of their variance that goes
    along with it, per power of its cost. After each choice the ensemble is moved as if the run had been made, to the
    spread that is left (the square-root update of an ensemble Kalman filter, Whitaker and Hamill 2002)."""
    law, free = known.fit(), known.free
    laws = known.resampled(law, rng)
    columns = Chinchilla(**{k: v[:, None] for k, v in laws.constants().items()})
    predicted = np.log(columns.predict(known.pool[0][free], known.pool[1][free]))
    asked = np.log(columns.predict(*known.target[:2]))
    predicted, asked = predicted - predicted.mean(axis=0), asked - asked.mean(axis=0)
    count, noise, order = len(predicted) - 1, known.noise(law), []
    while len(order) < min(len(known.made), len(free)):
        variance = (predicted**2).sum(axis=0) / count + noise**2  # of what would be seen
        shared = predicted.T @ asked / count  # [free, asked]
        worth = (shared**2).sum(axis=1) / variance / known.costs[free] ** COST_POWER
        best = int(np.argmax(np.where(np.isin(np.arange(len(free)), order), -1, worth)))
        order.append(best)
        seen, part = predicted[:, best].copy(), 1 / (1 + noise / np.sqrt(variance[best]))
        asked = asked - part * np.outer(seen, shared[best] / variance[best])
        predicted = predicted - part * np.outer(seen, predicted.T @ seen / count / variance[best])
    return free[order].tolist()


class Losses(NamedTuple):
    """What is asked: the losses of these runs [runs]."""

    params: Array
    tokens: Array

    def gradients(self, law: Law) -> Array:
        return rows(law, self.params, self.tokens)


def refine(known: Known, rng: np.random.Generator) -> list[int]:
    free = known.free
    law = known.fit()
    laws = (law, *some_of(known.resampled(law, rng)))
    N, D, _ = known.pool
    space = Space(tuple(Rung(0, 0, n, 0, 6 * n) for n in N[free]), 1.0, 0 * D[free], np.inf * D[free])
    found = optimal(
        space,
        laws,
        Noise(known.noise(law), 0.0),
        Losses(*known.target[:2]),
        known.left,
        among=Design.of(np.arange(len(free)), D[free]),
        made=Made(N[known.made], D[known.made], np.arange(len(known.made))),
        runs=len(known.made),
    )
    return free[found.sizes[np.argsort(space.flops(found))]].tolist()


WAYS: dict[str, Choose] = {
    "random": at_random,
    "cheapest": cheapest,
    "D-optimal": d_optimal,
    "active": active,
    "refine": refine,
}
DRAWN = (at_random, active, refine)  # whose choice depends on the seed


def run(way: Choose, pool: tuple[Array, ...], target: tuple[Array, ...], share: float, seed: int) -> float:
    known = Known(pool, target, share * float((6 * pool[0] * pool[1]).sum()))
    rng = np.random.default_rng(seed)
    while len(known.free) and known.add(way(known, rng), most=max(2, int((GROWTH - 1) * len(known.made)))):
        pass
    return known.error()


def read(folder: Path, name: str) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """(N, D, loss) of the pool, and of the most expensive tenth; of runs with the same N and D the best."""
    columns, where = SETS[name]
    runs = read_runs(folder / f"{name.partition(',')[0]}.csv", columns=columns, where=where)
    if "unique_tokens" in runs:
        once = runs["tokens"] <= runs["unique_tokens"] * 1.01
        runs = {k: v[once] for k, v in runs.items()}
    best: dict[tuple[float, float], float] = {}
    for n, d, loss in zip(runs["params"], runs["tokens"], runs["loss"], strict=True):
        best[n, d] = min(loss, best.get((n, d), np.inf))
    N, D, loss = (np.array(v) for v in zip(*((n, d, loss) for (n, d), loss in best.items()), strict=True))
    order = np.argsort(N * D)
    last = max(3, len(order) // 10)
    return tuple(v[order[:-last]] for v in (N, D, loss)), tuple(v[order[-last:]] for v in (N, D, loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for name in SETS:
        pool, target = read(args.data, name)
        everything = Known(pool, target, np.inf)
        everything.add(everything.free.tolist())
        print(f"{name}: {len(pool[0])} runs, {len(target[0])} held out; all: {everything.error():.2f} %", flush=True)
        for way, choose in WAYS.items():
            said = []
            for share in SHARES:
                seeds = range(args.seeds if choose in DRAWN else 1)
                errors = [run(choose, pool, target, share, seed) for seed in seeds]
                said.append(f"{share:.0%}: {np.median(errors):.2f} ({max(errors):.2f})")
            print(f"  {way:10s} " + "   ".join(said), flush=True)


if __name__ == "__main__":
    main()
