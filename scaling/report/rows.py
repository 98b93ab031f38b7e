"""What reports of all approaches are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..laws import Value

Report = dict[str, Any]

NARROW = 4.0  # span (largest over smallest) of params, tokens, budgets, below which an exponent hardly shows


def interval(values: Value, level: float) -> list[float]:
    """The central `level` percent of resampled values, those without one (nan) left out."""
    return [float(v) for v in np.nanpercentile(values, [50 - level / 2, 50 + level / 2])]


def shown(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} ... {interval[1]:.4g}"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True) if w).rstrip() for row in rows]
