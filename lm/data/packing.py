"""Packing documents into rows of equal length, by random access.

[i] -> {"tokens": int32[length + 1], "segments": int32[length + 1], "bytes": int32[length + 1]}, where segments number
the documents within the row from 1, padding is token 0 in segment 0, and bytes are those of the text that a token
covers. A row has one token more than it predicts. Rows that others go on from
(`RunningRows`) number documents, and tell `positions` too, in a way that rows agree on.
"""

import fcntl
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from lm.core.errors import UserError
from lm.data.cache import TokenCache

Row = dict[str, np.ndarray]


class PackedRows(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Row: ...
    def shifted(self, shift: int) -> Self: ...  # the same text between other boundaries, where a packing can


@dataclass(frozen=True)
class ConcatenatedRows:
    """Concatenate-and-split: rows overlap by one token, so that each token is predicted once.

    The stream is a circle, in which the last document's end-of-text stands before the first document: row i
    holds the tokens from shift + i * length on. There are tokens // length rows, and the remainder, which the
    shift chooses, is no target; with `pad` a last, partial row takes it in.
    """

    cache: TokenCache
    length: int
    shift: int = 0
    pad: bool = False

    def __post_init__(self):
        _check_length(self.length)
        if len(self) == 0:
            raise UserError(
                f"the corpus has {self.cache.size} tokens, fewer than one sequence of {self.length}; "
                f"give more text or a shorter sequence length"
            )

    def shifted(self, shift: int) -> Self:
        return replace(self, shift=shift % self.cache.size)

    def __len__(self) -> int:
        rows, rest = divmod(self.cache.size, self.length)
        return rows + (self.pad and rest > 0)

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        total, first = self.cache.size, i * self.length + self.shift
        real = min(self.length, total - i * self.length) + 1  # all of the row but for the last, padded one
        turn, place = np.divmod(np.arange(first, first + real), total)
        document = np.searchsorted(self.cache.offsets, place, side="right") + turn * self.cache.documents
        tokens, segments, covered = np.zeros((3, self.length + 1), np.int32)
        at = 0
        while at < real:  # once, or again where the circle closes
            start = (first + at) % total
            stop = min(start + real - at, total)
            tokens[at : at + stop - start] = self.cache.read(start, stop)
            covered[at : at + stop - start] = self.cache.read_bytes(start, stop)
            at += stop - start
        segments[:real] = document - self._before(document) + 1
        return {"tokens": tokens, "segments": segments, "bytes": covered} | self._more(place)

    def _before(self, document: np.ndarray) -> int:
        """The number of the document that is the first here."""
        return document[0]

    def _more(self, place: np.ndarray) -> Row:
        """What else a row tells of tokens at these places of the corpus."""
        return {}


@dataclass(frozen=True)
class RunningRows(ConcatenatedRows):
    """The same rows, for models that remember the row before: a document has the same number in all rows, and a token's
    position is its place in the document, wherever that began."""

    def _before(self, document: np.ndarray) -> int:
        return self.shift // self.cache.size * self.cache.documents + 1

    def _more(self, place: np.ndarray) -> Row:
        positions = np.zeros(self.length + 1, np.int32)
        starts = self.cache.offsets[np.searchsorted(self.cache.offsets, place, side="right") - 1]
        positions[: len(place)] = place - starts
        return {"positions": positions}


def evaluation_rows(cache: TokenCache, length: int, packing: str = "concat") -> ConcatenatedRows:
    """Rows in which every token is a target exactly once, the first of all after an end-of-text."""
    rows = RunningRows if packing == "stream" else ConcatenatedRows
    return rows(cache, length, shift=-1, pad=True)


class _Bins(NamedTuple):
    """Row i holds pieces ends[i - 1] to ends[i]; piece j is the tokens from starts[j] on, sizes[j] of them."""

    starts: np.ndarray  # int64[pieces]
    sizes: np.ndarray  # int32[pieces]
    ends: np.ndarray  # int64[rows]


@dataclass(frozen=True)
class BestFitRows:
    """Best-fit packing (Ding et al. 2024, arXiv 2404.10830): a document is cut only where it is longer than a row, and
    rows are padded. Every token is in a row; a long document's pieces overlap by one, so that no prediction is lost.

    The index of what goes where lies in the cache's folder, made once for each length."""

    cache: TokenCache
    length: int

    def __post_init__(self):
        _check_length(self.length)

    def shifted(self, shift: int) -> "BestFitRows":
        return self

    @cached_property
    def _bins(self) -> _Bins:
        folder = self.cache.directory / f"best-fit-{self.length}"
        if not folder.exists():
            _write_bins(folder, self.cache.offsets, self.length)
        try:
            return _Bins(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _Bins._fields))
        except (OSError, ValueError, EOFError) as e:
            raise UserError(f"packing index {folder} is damaged ({e}); delete it to have it made anew") from e

    def __getstate__(self) -> dict:  # data workers map the index anew
        return {"cache": self.cache, "length": self.length}

    def __len__(self) -> int:
        return len(self._bins.ends)

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        starts, sizes, ends = self._bins
        tokens, segments, covered = np.zeros((3, self.length + 1), np.int32)
        at = 0
        for segment, j in enumerate(range(ends[i - 1] if i else 0, ends[i]), 1):
            start, size = int(starts[j]), int(sizes[j])
            tokens[at : at + size] = self.cache.read(start, start + size)
            covered[at : at + size] = self.cache.read_bytes(start, start + size)
            segments[at : at + size] = segment
            at += size
        return {"tokens": tokens, "segments": segments, "bytes": covered}


PACKINGS = {"concat": ConcatenatedRows, "best-fit": BestFitRows, "stream": RunningRows}


def best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each piece: best-fit decreasing, int64[pieces]. Every size is at most `capacity`.

    The longest piece left goes to the fullest bin that has room. Pieces of one size, and bins of one room, are moved
    together: a bin that is the fullest to fit a piece of n remains it while n fit, so it takes as many as it can."""
    bins = np.empty(len(sizes), np.int64)
    waiting: dict[int, list[np.ndarray]] = defaultdict(list)  # room -> bins
    rooms = np.zeros(capacity + 1, bool)  # whether any waits there
    made = 0

    def put(room: int, which: np.ndarray) -> None:
        if room and len(which):
            waiting[room].append(which)
            rooms[room] = True

    order = np.argsort(-sizes, kind="stable")
    values, counts = np.unique(-sizes, return_counts=True)
    for size, todo in zip((-values).tolist(), np.split(order, np.cumsum(counts)[:-1]), strict=True):
        while len(todo):
            room = size + int(np.argmax(rooms[size:]))
            if rooms[room]:
                found = np.concatenate(waiting.pop(room))
                rooms[room] = False
            else:  # none has room: as many new bins as are needed
                room = capacity
                found = made + np.arange(-(-len(todo) // (capacity // size)))
                made += len(found)
            each = room // size
            used = found[: -(-len(todo) // each)]
            put(room, found[len(used) :])
            taken = min(len(todo), each * len(used))
            bins[todo[:taken]] = np.repeat(used, each)[:taken]
            last = taken - each * (len(used) - 1)  # pieces in the last bin
            put(room - each * size, used[:-1])
            put(room - last * size, used[-1:])
            todo = todo[taken:]
    return bins


def _write_bins(folder: Path, offsets: np.ndarray, length: int) -> None:
    """The index of best-fit rows, whole or not at all; of several processes one writes it and the others wait."""
    lengths = np.diff(offsets)
    pieces = np.maximum(1, -(-(lengths - 1) // length))  # a row of length + 1 tokens, overlapping by one
    which = np.repeat(np.arange(len(lengths)), pieces)
    part = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    sizes = np.minimum(length + 1, lengths[which] - part * length).astype(np.int32)
    starts = offsets[:-1][which] + part * length
    bins = best_fit(sizes, length + 1)
    order = np.argsort(bins, kind="stable")
    index = _Bins(starts[order], sizes[order], np.cumsum(np.bincount(bins)))
    unfinished = folder.with_name(f".{folder.name}")
    try:
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
                unfinished.mkdir()
                for name, values in index._asdict().items():
                    np.save(unfinished / f"{name}.npy", values)
                unfinished.rename(folder)
        finally:
            os.close(handle)
    except OSError as e:
        raise UserError(f"cannot write the packing index {folder}: {e.strerror}; choose another data.cache") from e


def _check_length(length: int) -> None:
    if length < 1:
        raise UserError(f"sequence length is {length}; give 1 or more")
