"""The runs that a plan may choose among, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ladder import Rung
from ..laws import Array, Frontier

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """Runs, each by the index of its size and its training tokens; `budgets` are the FLOPs that they were made for, nan
    for none. All arrays are [runs]."""

    sizes: Indices
    tokens: Array
    budgets: Array

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, sizes: Any, tokens: Any, budgets: Any = None) -> "Design":
        tokens = np.asarray(tokens, np.float64)
        budgets = np.full(len(tokens), np.nan) if budgets is None else np.asarray(budgets, np.float64)
        return cls(np.asarray(sizes, np.int64), tokens, budgets)

    def __getitem__(self, some: Any) -> "Design":
        return Design(self.sizes[some], self.tokens[some], self.budgets[some])

    def __add__(self, other: "Design") -> "Design":
        parts = zip((self.sizes, self.tokens, self.budgets), (other.sizes, other.tokens, other.budgets), strict=True)
        return Design(*(np.concatenate(pair) for pair in parts))


@dataclass(frozen=True)
class Space:
    """Sizes by params, how runs of one size share their steps, and how short and how long a run may be.

    cooldown: share of a run's steps in which the learning rate falls, which no other run shares; 1: runs share nothing.
    least, most: training tokens of a run, by size; row: tokens of a row."""

    sizes: tuple[Rung, ...]
    cooldown: float
    least: Array
    most: Array
    row: int = 1

    @property
    def params(self) -> Array:
        return np.array([s.params for s in self.sizes], np.float64)

    @property
    def token_flops(self) -> Array:
        """Training FLOPs per token, by size."""
        return np.array([s.flops for s in self.sizes], np.float64)

    def flops(self, design: Design) -> Array:
        """Of each run as if it were alone."""
        return self.token_flops[design.sizes] * design.tokens

    def cost(self, design: Design) -> float:
        """FLOPs of all runs. Those of one size are cool-downs off one trunk, which is run, and counted, once: as far as
        the last of them leaves it."""
        flops = self.flops(design)
        trunks = np.zeros(len(self.sizes))
        np.maximum.at(trunks, design.sizes, flops)
        return float(self.cooldown * flops.sum() + (1 - self.cooldown) * trunks.sum())

    def added(self, design: Design, candidates: Design) -> Array:
        """What each of the candidates would add to the cost of a design."""
        trunks = np.zeros(len(self.sizes))
        np.maximum.at(trunks, design.sizes, self.flops(design))
        flops = self.flops(candidates)
        return self.cooldown * flops + (1 - self.cooldown) * np.maximum(flops - trunks[candidates.sizes], 0)

    def inputs(self, design: Design) -> tuple[Array, Array]:
        """N and D, as laws read them."""
        return self.params[design.sizes], design.tokens

    def optimal(self, law: Frontier, flops: float) -> int:
        """The index of the size of least loss for so many FLOPs as they are counted here."""
        return int(np.argmin(law.predict(self.params, flops / self.token_flops)))

    def suited(self, law: Frontier) -> Array:
        """The tokens with which each size lies on the law's frontier (of 6 N D)."""
        n, d = law.optimal(np.geomspace(1e6, 1e32, 500))
        return np.exp(np.interp(np.log(self.params), np.log(n), np.log(d)))

    def around(self, law: Frontier) -> tuple[Array, Array]:
        """N and D of runs all over the space: a few sizes, on a quarter of the tokens that suit them, on these, and on
        four times as many."""
        sizes = np.linspace(0, len(self.sizes) - 1, 6).round().astype(int)
        d = self.suited(law)[sizes]
        return np.repeat(self.params[sizes], 3), (d[:, None] * [0.25, 1.0, 4.0]).ravel()

    def possible(self, design: Design) -> NDArray[np.bool_]:
        """Which runs are neither too short nor too long."""
        return (self.least[design.sizes] <= design.tokens) & (design.tokens <= self.most[design.sizes])


def spread(params: Array, centre: float, factor: float, number: int) -> list[int]:
    """The indices of up to `number` of some sizes, evenly spaced from centre / factor to centre * factor."""
    wanted = centre * factor ** np.linspace(-1, 1, number)
    return sorted({int(np.argmin(np.abs(np.log(params / n)))) for n in wanted})


def without_copies(designs: Sequence[Design]) -> Design:
    """All runs of some designs, each once."""
    whole = sum(designs[1:], designs[0])
    _, first = np.unique(np.stack([whole.sizes, whole.tokens]), axis=1, return_index=True)
    return whole[np.sort(first)]
