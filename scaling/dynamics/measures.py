"""What predictions of single tokens tell of a model: what it has learned by heart, and where it fails.

Shapes: R rows of text, S positions in a row. `right` [R, S] says where the token that the model thinks likeliest is
the next one; `counted` [R, S] which positions predict one. As greedy decoding goes on along a text for as long as its
choices are those of the text, one pass over it tells what would be written from any prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = Any  # of numpy
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is 0 modulo 2^64


class Predicted(NamedTuple):
    """tokens, targets [R, S] int; nats [R, S]: minus the log-probability of the target; right, counted [R, S] bool."""

    tokens: Array
    targets: Array
    nats: Array
    right: Array
    counted: Array

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.nats[self.counted].mean())


class Rate(NamedTuple):
    """A share of so many windows, and its standard error."""

    share: float
    error: float
    windows: int

    @classmethod
    def of(cls, hits: Array) -> "Rate":
        if not len(hits):
            return cls(float("nan"), float("nan"), 0)
        share = float(np.mean(hits))
        return cls(share, (share * (1 - share) / len(hits)) ** 0.5, len(hits))


def reproduced(of: Predicted, prefix: int, continuation: int) -> tuple[Array, Array]:
    """(whether a model that is given the first `prefix` tokens of a row goes on with the next `continuation` ones, the
    numbers of the rows that this can be asked of, which no document ends within). [rows], [rows]"""
    whole = of.counted[:, : prefix + continuation - 1].all(axis=1)
    rows = np.flatnonzero(whole) if prefix + continuation <= of.tokens.shape[1] + 1 else np.zeros(0, int)
    return np.all(of.right[rows, prefix - 1 : prefix - 1 + continuation], axis=1), rows


def continuations(of: Predicted, rows: Array, prefix: int, continuation: int) -> Array:
    """[rows, continuation]: the tokens that `reproduced` asks for."""
    return of.targets[rows, prefix - 1 : prefix - 1 + continuation]


def hashes(tokens: Array, length: int) -> Array:
    """A 64-bit number for each window of `length` tokens, [..., T] -> [..., T - length + 1], by which equal windows are
    found: a polynomial of the tokens, put together from windows whose lengths are powers of two."""
    part, size, power = tokens.astype(np.uint64) + np.uint64(1), 1, BASE  # of windows of `size`; BASE to that power
    whole, done = np.zeros_like(part), 0
    with np.errstate(over="ignore"):
        while size <= length:
            if length & size:
                n = part.shape[-1] - done
                whole, done = whole[..., :n] * power + part[..., done:], done + size
            n = max(part.shape[-1] - size, 0)
            part = part[..., :n] * power + part[..., size : size + n]
            size, power = 2 * size, power * power
    return whole[..., : tokens.shape[-1] - length + 1]


def occurrences(text: Array, windows: Array) -> Array:
    """How often each of `windows` [N, n] stands in a text [T]: [N]."""
    known = np.sort(hashes(text, windows.shape[1]))
    asked = hashes(windows, windows.shape[1])[:, 0]
    return np.searchsorted(known, asked, "right") - np.searchsorted(known, asked, "left")


def by_duplicates(hits: Array, copies: Array) -> dict[int, Rate]:
    """Rates of windows with 0, 1, 2 to 3, 4 to 7 ... copies, by the least of each bin."""
    least = np.where(copies > 0, 2 ** np.floor(np.log2(np.maximum(copies, 1))).astype(int), 0)
    return {int(n): Rate.of(hits[least == n]) for n in np.unique(least)}


def by_position(of: Predicted) -> Array:
    """[S]: nats per token at each position of a row; nan where none is predicted."""
    counted = of.counted.sum(axis=0)
    return np.where(counted, (of.nats * of.counted).sum(axis=0) / np.maximum(counted, 1), np.nan)


def by_frequency(of: Predicted, counts: Array) -> dict[int, tuple[float, float]]:
    """(nats per token, share of the tokens) of targets that the training text has 0, 1, 2 to 3, 4 to 7 ... times, by
    the least of each bin. counts: [vocabulary]"""
    nats, seen = of.nats[of.counted], counts[of.targets[of.counted]]
    least = np.where(seen > 0, 2 ** np.floor(np.log2(np.maximum(seen, 1))).astype(int), 0)
    bins = np.unique(least)
    return {int(n): (float(nats[least == n].mean()), float((least == n).mean())) for n in bins}


def exact_match(of: Predicted, lengths: Sequence[int]) -> dict[int, float]:
    """The share of windows of n tokens that greedy decoding writes without a fault: about the accuracy of one token to
    the n-th power, so that it seems to appear of a sudden where accuracy grows evenly (Schaeffer, Miranda and Koyejo
    2023, arXiv 2304.15004)."""
    found = {}
    for n in lengths:
        if n <= of.right.shape[1]:
            windows, whole = (sliding_window_view(x, n, axis=1).all(axis=-1).ravel() for x in (of.right, of.counted))
            found[n] = float(np.mean(windows[np.flatnonzero(whole)])) if whole.any() else float("nan")
    return found
