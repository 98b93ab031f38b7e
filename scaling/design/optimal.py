"""Optimal designs: those runs under a budget after which a question is answered most precisely.

D-optimal designs maximise the determinant of the information on all constants, c-optimal ones minimise the variance of
one decision (Atkinson, Donev and Tobias, Optimum Experimental Designs, 2007). Both depend on the law that the runs are
to find, of which the planner has a guess: a design is judged by the mean over several such laws, so that it does not
rest on one of them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..laws import Array, Frontier
from .precision import UNKNOWN, Noise, information, rows
from .space import Design, Space, without_copies

PER_OCTAVE = 2  # lengths of candidate runs of a size
APART = 1.9  # between lengths of a size's runs: closer ones share most of their noise, and tell little of the law
LEAST_GAIN = 0.003  # in the criterion, below which another run is not worth its trouble
EXCHANGES = 60  # rounds of dropping a run and filling up again
# Runs are chosen by what they gain over a power of what they cost: 1 takes many small ones, 0 few large ones.
POWERS = (1.0, 0.5, 0.25, 0.0)


def candidates(space: Space, law: Frontier, flops: float, reach: float, share: float = 0.5) -> Design:
    """Runs of every size, of tokens within a factor `reach` of those that the law expects to suit it, none of which
    costs more than a `share` of all `flops`."""
    runs = []
    steps = np.arange(-math.floor(math.log2(reach) * PER_OCTAVE), math.floor(math.log2(reach) * PER_OCTAVE) + 1)
    for s, suited in enumerate(space.suited(law)):
        runs += [(s, suited * 2.0 ** (step / PER_OCTAVE)) for step in steps]
    design = Design.of(*map(np.array, zip(*runs, strict=True)))
    return design[space.possible(design) & (space.flops(design) <= share * flops)]


class Asked(Protocol):
    def gradients(self, law: Frontier) -> Array | None:
        """The derivatives of the logarithms of what is asked, [answers, constants], whose variances count by their sum;
        None: all constants are asked, and count by the determinant of their covariance."""


class Made(NamedTuple):
    """Runs that there are: N, D, and the trunk that each is of, [runs]."""

    params: Array
    tokens: Array
    trunks: Any


class Criterion:
    """How uncertain the answer to a question remains, in log standard deviations: lower is better, and 0.69 lower is
    half the interval. The mean over several laws that may hold."""

    def __init__(
        self,
        laws: Sequence[Frontier],
        noise: Noise,
        question: Asked,
        space: Space,
        pool: Design,
        made: Made | None = None,
    ) -> None:
        """`pool`: the runs that designs will be made of, by their indices; `made`: runs that there are already."""
        self.noise, self.trunks = noise, pool.sizes
        self.rows = np.stack([rows(law, *space.inputs(pool)) for law in laws])  # [laws, pool, constants]
        self.width = self.rows.shape[-1]
        self.before = np.tile(np.eye(self.width) / UNKNOWN**2, (len(laws), 1, 1))
        if made is not None:
            jac = np.stack([rows(law, made.params, made.tokens) for law in laws])
            self.before += information(jac, made.trunks, noise)
        asked = [g for g in map(question.gradients, laws) if g is not None]
        self.gradients = np.stack(asked) if asked else None  # [laws, answers, constants]

    def value(self, chosen: Sequence[int]) -> float:
        return float(self._values(self._information(chosen)).mean())

    def gains(self, chosen: Sequence[int]) -> Array:
        """By how much each of the pool would lower the value, [pool]."""
        covariance = np.linalg.inv(self._information(chosen))
        # What a run adds to what those of its trunk said: their common error is partly known.
        some, shared = np.asarray(chosen, np.int64), self.noise.shared
        same = np.equal.outer(self.trunks, self.trunks[some]).astype(float)  # [pool, chosen]
        counts = same.sum(axis=1)
        weight = shared / (1 - shared + shared * counts)
        new = self.rows - weight[:, None] * (same @ self.rows[:, some])
        variance = self.noise.run**2 * (1 - shared * counts * weight)
        moved = np.einsum("lnk,lkm->lnm", new, covariance)
        leverage = np.einsum("lnm,lnm->ln", moved, new) / variance
        if self.gradients is None:
            return np.asarray((np.log1p(leverage) / (2 * self.width)).mean(axis=0))
        before = np.einsum("lak,lkm,lam->l", self.gradients, covariance, self.gradients)
        told = (np.einsum("lnm,lam->lna", moved, self.gradients) ** 2).sum(axis=-1)
        part = told / variance / (1 + leverage) / before[:, None]
        return np.asarray((-0.5 * np.log1p(-np.minimum(part, 1 - 1e-12))).mean(axis=0))

    def _information(self, chosen: Sequence[int]) -> Array:
        """[laws, constants, constants]"""
        some = np.asarray(chosen, np.int64)
        return self.before + information(self.rows[:, some], self.trunks[some], self.noise)

    def _values(self, informations: Array) -> Array:
        """[laws]"""
        if self.gradients is None:
            return np.asarray(-np.linalg.slogdet(informations)[1] / (2 * self.width))
        solved = np.linalg.solve(informations, np.swapaxes(self.gradients, 1, 2))
        return np.asarray(0.5 * np.log(np.einsum("lka,lak->l", solved, self.gradients)))


def optimal(
    space: Space,
    laws: Sequence[Frontier],
    noise: Noise,
    question: Asked,
    flops: float,
    *,
    among: Design,
    starts: Sequence[Design] = (),
    made: Made | None = None,
    runs: int = 40,
    seed: int = 0,
) -> Design:
    """The best design found of at most so many `runs` among these candidates and the `starts`, each at most once,
    beside those that are `made`; never worse than any of the starts. Greedy choice, then exchanges."""
    pool = without_copies([among, *starts])
    if not len(pool):
        return pool
    criterion = Criterion(laws, noise, question, space, pool, made)
    place = {(s, d): i for i, (s, d) in enumerate(zip(pool.sizes.tolist(), pool.tokens.tolist(), strict=True))}
    known = [[place[key] for key in zip(x.sizes.tolist(), x.tokens.tolist(), strict=True)] for x in starts]
    best: list[int] = min(known, key=criterion.value, default=[])
    rng = np.random.default_rng(seed)
    for power in POWERS:
        for start in ([], best):
            chosen = _filled(space, pool, criterion, start, flops, runs, power)
            chosen = _exchanged(space, pool, criterion, chosen, flops, runs, rng)
            best = min((best, chosen), key=criterion.value) if best else chosen
    best.sort(key=lambda i: (pool.sizes[i], pool.tokens[i]))
    return pool[best]


def _filled(
    space: Space, pool: Design, criterion: Criterion, start: Sequence[int], flops: float, runs: int, power: float
) -> list[int]:
    """More runs, as long as one gains anything and can be paid for."""
    chosen = list(start)
    spent = space.cost(pool[chosen]) if chosen else 0.0
    free = np.ones(len(pool), bool)
    free[chosen] = False
    while len(chosen) < runs:
        costs = space.added(pool[chosen], pool)
        gains = criterion.gains(chosen)
        possible = free & apart(pool, chosen) & (spent + costs <= flops) & (gains > LEAST_GAIN)
        worth = np.where(possible, gains / costs**power, 0.0)
        best = int(np.argmax(worth))
        if worth[best] <= 0:
            break
        chosen.append(best)
        free[best] = False
        spent = space.cost(pool[chosen])
    return chosen


def apart(pool: Design, chosen: Sequence[int]) -> NDArray[np.bool_]:
    """Which of the pool are longer or shorter than each chosen run of their size by `APART`."""
    some = pool[list(chosen)]
    near = np.abs(np.log(pool.tokens[:, None] / some.tokens)) < math.log(APART)
    return ~(near & (pool.sizes[:, None] == some.sizes)).any(axis=1)


def _exchanged(
    space: Space,
    pool: Design,
    criterion: Criterion,
    chosen: list[int],
    flops: float,
    runs: int,
    rng: np.random.Generator,
) -> list[int]:
    """Drops one or two runs at a time and fills up again, as long as that is better."""
    value = criterion.value(chosen)
    for _ in range(EXCHANGES if chosen else 0):
        dropped = set(rng.choice(len(chosen), min(len(chosen), int(rng.integers(1, 3))), replace=False).tolist())
        rest = [c for i, c in enumerate(chosen) if i not in dropped]
        trial = _filled(space, pool, criterion, rest, flops, runs, rng.choice(POWERS))
        if (new := criterion.value(trial)) < value - 1e-9:
            chosen, value = trial, new
    return chosen
