"""Rows of different lengths in batches of few shapes, sized to fit the memory."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from lm.core.errors import UserError

Shape = tuple[int, ...]
TOKENS = 8192  # of a batch, at most
BYTES = 1 << 30  # of a batch's largest arrays together, at most
LIVE = 3  # arrays as large as the largest that are there at the same time
LEAST = 16  # tokens of a row


class ScoredRows(Protocol):
    """What is scored, row by row: `sizes` int64[rows, k] and a row's arrays, padded to a shape of k numbers."""

    @property
    def sizes(self) -> np.ndarray: ...
    @property
    def scored(self) -> np.ndarray: ...
    def row(self, i: int, shape: Shape) -> dict[str, np.ndarray]: ...


class RowGroup(NamedTuple):
    """Rows that are padded to one shape, and how many of them a batch has."""

    shape: Shape
    rows: np.ndarray
    together: int


def groups(sizes: np.ndarray, most: Shape, together: Callable[[Shape], int]) -> list[RowGroup]:
    """Group rows of similar size: each number of a shape is a power of two, at most that of `most`. Rows too few to
    fill a batch join the next larger shape, so that few programs are compiled. The largest come first."""
    if not len(sizes):
        return []
    rounded = 1 << np.ceil(np.log2(np.maximum(sizes, LEAST))).astype(int)
    shapes, which = np.unique(np.minimum(rounded, most), axis=0, return_inverse=True)
    which = which.reshape(-1)
    made: list[RowGroup] = []
    left, shape = np.zeros(0, int), np.zeros(sizes.shape[1], int)
    for i in np.argsort(shapes.prod(1), kind="stable"):
        shape = np.maximum(shape, shapes[i])
        left = np.concatenate([left, np.flatnonzero(which == i)])
        fill = together(tuple(shape.tolist()))
        if len(left) >= fill:
            made.append(RowGroup(tuple(shape.tolist()), left, fill))
            left, shape = left[:0], np.zeros_like(shape)
    if len(left):
        made.append(RowGroup(tuple(shape.tolist()), left, len(left)))
    return made[::-1]


def batches(rows: ScoredRows, planned: list[RowGroup]) -> Iterator[dict[str, np.ndarray]]:
    """All rows once; the last batch of a group is padded with empty rows."""
    for shape, which, together in planned:
        for at in range(0, len(which), together):
            made = [rows.row(int(i), shape) for i in which[at : at + together]]
            made += [{name: np.zeros_like(value) for name, value in made[0].items()}] * (together - len(made))
            yield {name: np.stack([one[name] for one in made]) for name in made[0]}


def rows_together(largest: Callable[[Shape, int], int], shape: Shape) -> int:
    """How many rows of a shape fit in a batch, limited by TOKENS and BYTES. `largest(shape, rows)`: bytes of the
    largest array that such a batch creates.

    Raises `UserError` if there is not enough memory for one row."""
    rows = max(1, TOKENS // sum(shape))
    if (needed := LIVE * largest(shape, rows)) > BYTES:
        rows = max(1, int(rows * BYTES / needed))
        needed = LIVE * largest(shape, rows)
    if rows == 1 and needed > (there := memory()):
        raise UserError(
            f"a row of {max(shape):,} tokens takes some {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f}: give "
            "a smaller --length, longer documents are read in windows of it"
        )
    return rows


def memory() -> int:
    """Bytes of the first device, or of the machine."""
    stats: dict[str, Any] = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
