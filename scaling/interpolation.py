"""Where a profile, losses over sizes at equal compute, has its minimum: by a parabola, or by Akima's curve.

All take x, log sizes [runs] in rising order, and losses [..., runs] there, a batch of profiles over the same sizes.
"""

from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from .laws import Array

GRID = 512  # points among which Akima's curve has its minimum, before a parabola through three of them
BEYOND = np.log(4.0)  # past the runs, where a parabola's vertex is no minimum to speak of
SAME = 0.02  # in log size: nearer ones are one size, whose losses are averaged (seeds, digitised figures)


class Minima(NamedTuple):
    """[...] each: log size (nan: none), loss there, and whether that is between the least and the largest size."""

    x: Array
    loss: Array
    inside: Array


class Interpolation(Protocol):
    """A way to draw a curve through a profile."""

    name: ClassVar[str]  # for people
    weighted: ClassVar[bool]  # whether minima are weighed by their variance in the power law through them
    fewest: ClassVar[int]  # distinct sizes that a curve needs

    @staticmethod
    def minima(x: Array, losses: Array) -> Minima: ...

    @staticmethod
    def curve(x: Array, losses: Array, at: Array) -> Array:
        """The loss of one profile at log sizes `at`."""


class Parabola:
    """Least squares of L = c0 + c1 x + c2 x^2 (Hoffmann et al. 2022, section 3.2)."""

    name: ClassVar[str] = "a parabola"
    weighted: ClassVar[bool] = False
    fewest: ClassVar[int] = 3

    @staticmethod
    def minima(x: Array, losses: Array) -> Minima:
        mean = x.mean()
        c2, c1, c0 = np.moveaxis(losses @ np.linalg.pinv(np.vander(x - mean, 3)).T, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -c1 / (2 * c2)
        # One that opens downwards has no minimum, and a nearly straight one has it anywhere.
        near = (x.min() - BEYOND < mean + vertex) & (mean + vertex < x.max() + BEYOND)
        vertex = np.where((c2 > 0) & near, vertex, np.nan)
        found = mean + vertex
        return Minima(found, c0 + vertex * (c1 + vertex * c2), (x.min() < found) & (found < x.max()))

    @staticmethod
    def curve(x: Array, losses: Array, at: Array) -> Array:
        return np.polyval(np.polyfit(x - x.mean(), losses, 2), at - x.mean())


class Akima:
    """Akima's curve of log L over x, which bends to every run (Porian et al. 2024, arXiv 2406.19146)."""

    name: ClassVar[str] = "Akima's curve"
    weighted: ClassVar[bool] = True
    fewest: ClassVar[int] = 4

    @staticmethod
    def minima(x: Array, losses: Array) -> Minima:
        knots, values = _averaged(x, np.log(losses))
        grid = np.linspace(knots[0], knots[-1], GRID)
        curve = np.moveaxis(Akima1DInterpolator(knots, np.moveaxis(values, -1, 0))(grid), 0, -1)  # [..., GRID]
        lowest = np.argmin(curve, axis=-1)[..., None]
        at = np.clip(lowest, 1, GRID - 2)
        before, here, after = (np.take_along_axis(curve, at + k, -1)[..., 0] for k in (-1, 0, 1))
        bend = before - 2 * here + after
        shift = np.where(bend > 0, (before - after) / (2 * np.where(bend > 0, bend, 1.0)), 0.0)
        found = np.clip(grid[at[..., 0]] + np.clip(shift, -1, 1) * (grid[1] - grid[0]), grid[0], grid[-1])
        return Minima(found, np.exp(curve.min(-1)), (lowest[..., 0] > 0) & (lowest[..., 0] < GRID - 1))

    @staticmethod
    def curve(x: Array, losses: Array, at: Array) -> Array:
        return np.exp(Akima1DInterpolator(*_averaged(x, np.log(losses)))(at))


INTERPOLATIONS: dict[str, type[Interpolation]] = {"parabola": Parabola, "akima": Akima}


def distinct(x: Array) -> int:
    """How many sizes there are, nearly equal ones taken together."""
    return int(_clusters(x).max()) + 1


def _clusters(x: Array) -> Array:
    """[runs] the number of the size that each belongs to."""
    numbers, first, number = np.zeros(len(x), int), x[0], 0
    for i, value in enumerate(x):
        if value - first > SAME:
            first, number = value, number + 1
        numbers[i] = number
    return numbers


def _averaged(x: Array, values: Array) -> tuple[Array, Array]:
    """Means of x and of values [..., runs] over runs of one size: [sizes], [..., sizes]."""
    mean = np.eye(distinct(x))[_clusters(x)]  # [runs, sizes]
    mean /= mean.sum(0)
    return x @ mean, values @ mean
