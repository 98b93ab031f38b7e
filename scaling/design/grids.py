"""Designs by rule: isoFLOP grids, and curves of fixed sizes. Each is as large as the budget allows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..laws import Frontier
from .space import Design, Space, spread

SPAN = 4.0  # largest / optimal size of a grid, and optimal / smallest: 16 in all, beyond which parabolas are biased


class Grid(NamedTuple):
    """budgets: how many; sizes: of each; ratio: between budgets, and between the lengths of a size's runs."""

    budgets: int = 4
    sizes: int = 5
    ratio: float = 2.0


def isoflop(space: Space, law: Frontier, grid: Grid, flops: float) -> Design | None:
    """Budgets a `ratio` apart, at each of them sizes around the one that the law expects to be best (Hoffmann et al.
    2022, approach 2), which cost no more than `flops` together; None where all of them cost more."""

    def made(largest: float) -> Design:
        runs = []
        for i in range(grid.budgets):
            budget = largest / grid.ratio**i
            best = space.params[space.optimal(law, budget)]
            runs += [(s, budget / space.token_flops[s], budget) for s in spread(space.params, best, SPAN, grid.sizes)]
        design = Design.of(*map(np.array, zip(*runs, strict=True)))
        return design[space.possible(design)]

    return _largest(made, space, flops)


def curves(space: Space, law: Frontier, grid: Grid, flops: float) -> Design | None:
    """A few sizes, each trained for several lengths a `ratio` apart around the one that the law expects to suit it: the
    cool-downs of one trunk (Haegele et al. 2024, arXiv 2405.18392), which cost no more than `flops` together; None
    where all of them cost more."""
    suited = space.suited(law)

    def made(largest: float) -> Design:
        top = space.optimal(law, largest)
        best = space.params[top]
        # Sizes are steps apart, and FLOPs are not 6 N D: the middle length of the largest is what all of it pays for.
        middle = largest / (space.token_flops[top] * suited[top])
        lengths = middle * grid.ratio ** (np.arange(grid.budgets) - (grid.budgets - 1) / 2)
        runs = []
        for s in spread(space.params[: top + 1], best / SPAN, SPAN, grid.sizes):
            runs += [(s, suited[s] * length) for length in lengths]
        design = Design.of(*map(np.array, zip(*runs, strict=True)))
        return design[space.possible(design)]

    return _largest(made, space, flops)


def _largest(made: Callable[[float], Design], space: Space, flops: float) -> Design | None:
    """The design of the largest run that the total allows, by bisection in its logarithm; None where even the smallest
    costs more."""
    low, high = np.log(flops) - 16, np.log(flops)
    best = None
    for _ in range(40):
        middle = (low + high) / 2
        design = made(float(np.exp(middle)))
        if len(design) and space.cost(design) > flops:
            high = middle
        else:  # none where all would be too short
            best, low = design if len(design) else best, middle
    return best
