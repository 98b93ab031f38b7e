"""What all pictures of fits have in common."""

import os
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from ..laws import Array, Value

INK = "#333333"
PALE = "#8a8f98"
ACCENT = "#d1495b"  # what was fitted, and its bands
SECOND = "#00798c"  # what it is compared with
COLOURS = "viridis"  # of sizes and of budgets, small ones dark


def figure_of(title: str, width: float, height: float = 4.4) -> Figure:
    """A matplotlib figure that belongs to no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=12, color=INK)
    return figure


def panels(figure: Figure, columns: int, rows: int = 1, **how: Any) -> list[Axes]:
    """Axes with a light grid and no box, row by row."""
    found = list(np.atleast_1d(np.asarray(figure.subplots(rows, columns, **how))).flat)
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(colors=INK, which="both", labelsize=8)
        axes.grid(which="major", color="#e6e8eb", lw=0.6)
        axes.set_axisbelow(True)
    return found


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    figure.savefig(path, dpi=150)


def colours(count: int) -> Array:
    """[count, 4], from dark to light and never as light as paper."""
    return np.asarray(colormaps[COLOURS](np.linspace(0, 0.88, count)))


def band(axes: Axes, x: Array, values: Array, level: float, colour: str = ACCENT, label: str | None = None) -> None:
    """Shade the central `level` percent of values [len(x), resamples]; nan is no value."""
    low, high = np.nanpercentile(values, [50 - level / 2, 50 + level / 2], axis=1)
    label = f"{level:g} % interval" if label is None else label
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, label=label)


def reach(values: ArrayLike, further: ArrayLike = (), margin: float = 1.5, count: int = 100) -> Array:
    """Log-spaced from below the least of `values` to past the largest, `further` ones included."""
    ends = np.concatenate([np.ravel(values), np.atleast_1d(np.asarray(further, np.float64))])
    return np.geomspace(ends.min() / margin, ends.max() * margin, count)


def plain_ticks(axes: Axes, count: int = 7) -> None:
    """Values within a factor of ten as 2.5, not as 10 to a power, and more of them than the powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        if axis.get_scale() == "linear" or high < 10 * low:
            # Even steps crowd the upper end of a logarithmic axis, unless it is short.
            even = axis.get_scale() == "linear" or high < 4 * low
            axis.set_major_locator(MaxNLocator(count) if even else LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:.4g}")
            axis.set_minor_locator(NullLocator())
        elif high < 100 * low:  # where matplotlib would write beside every small tick
            axis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.set_major_formatter("{x:.4g}")
            axis.set_minor_formatter(NullFormatter())


def tex(value: Value) -> str:
    """A number of four digits for mathematical text."""
    mantissa, _, power = f"{value:.4g}".partition("e")
    return f"{mantissa} \\cdot 10^{{{int(power)}}}" if power else mantissa
