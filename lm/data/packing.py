"""Packing documents into rows of equal length, with random access.

[i] -> {"tokens": int32[length + 1], "segments": int32[length + 1], "bytes": int32[length + 1]}: segments number the
documents within the row from 1, padding is token 0 in segment 0, and bytes counts the text that each token covers.
Channels of the cache (`lm.data.channels`) stand beside them under their names, 0 on padding. A row has one more token
than it predicts. Rows that continue others (`RunningRows`) also have `positions`, and number documents and positions
consistently across rows. `overlaps`, int32 [], is 1 in rows that begin with the last token of the one before, which is
not to be read twice where it is not only read to predict the next (`read_of`).
"""

import fcntl
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from lm.core.errors import UserError
from lm.data.cache import TokenCache

Row = dict[str, np.ndarray]
NO_CHANNELS: Mapping[str, DTypeLike] = {}


class PackedRows(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Row: ...
    def shifted(self, shift: int) -> Self: ...  # the same text cut at other boundaries, if the packing can
    def documents(self, i: int) -> np.ndarray: ...  # numbers of those documents of the corpus that row i has tokens of


@dataclass(frozen=True)
class ConcatenatedRows:
    """Concatenate-and-split: rows overlap by one token, so that each token is predicted once.

    The token stream is circular (the last document's end-of-text precedes the first document), and row i starts at
    token shift + i * length. There are tokens // length rows; the remaining tokens, which depend on the shift, are not
    predicted, unless `pad` adds a last, partial row for them.
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
        real = min(self.length, total - i * self.length) + 1  # the whole row, except in a padded last one
        turn, index = np.divmod(np.arange(first, first + real), total)
        document = np.searchsorted(self.cache.offsets, index, side="right") + turn * self.cache.documents
        row = blank(self.cache, self.length)
        at = 0
        while at < real:  # a second turn only where the circle closes
            start = (first + at) % total
            stop = min(start + real - at, total)
            copy(self.cache, row, at, start, stop)
            at += stop - start
        row["segments"][:real] = document - self._before(document) + 1
        return row | {"overlaps": np.array(1, np.int32)} | self._more(index)

    def documents(self, i: int) -> np.ndarray:
        first = i * self.length + self.shift
        return documents_at(self.cache, np.arange(first, first + self.length + 1) % self.cache.size)

    def _before(self, document: np.ndarray) -> int:
        """The document that gets number 1."""
        return document[0]

    def _more(self, index: np.ndarray) -> Row:
        """Further arrays of a row with the tokens at these indices of the corpus."""
        return {}


@dataclass(frozen=True)
class RunningRows(ConcatenatedRows):
    """The same rows for models with memory: a document has the same number in all rows, and positions count from the
    start of the document, even if that is in an earlier row."""

    def _before(self, document: np.ndarray) -> int:
        return self.shift // self.cache.size * self.cache.documents + 1

    def _more(self, index: np.ndarray) -> Row:
        positions = np.zeros(self.length + 1, np.int32)
        starts = self.cache.offsets[np.searchsorted(self.cache.offsets, index, side="right") - 1]
        positions[: len(index)] = index - starts
        return {"positions": positions}


def evaluation_rows(cache: TokenCache, length: int, packing: str = "concat") -> ConcatenatedRows:
    """Rows of documents in which every token is a target exactly once; the very first follows an end-of-text."""
    rows = RunningRows if packing == "stream" else ConcatenatedRows
    return rows(cache, length, shift=-1, pad=True)


class _Bins(NamedTuple):
    """Row i holds pieces ends[i - 1] to ends[i]; piece j is the sizes[j] tokens from starts[j] on."""

    starts: np.ndarray  # int64[pieces]
    sizes: np.ndarray  # int32[pieces]
    ends: np.ndarray  # int64[rows]


@dataclass(frozen=True)
class BestFitRows:
    """Best-fit packing (Ding et al. 2024, arXiv 2404.10830): only documents longer than a row are cut, and rows are
    padded. Every token is in some row; the pieces of a long document overlap by one token so that no prediction is
    lost.

    The index is kept in the cache's folder, computed once per length."""

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
            write_index(folder, _bins(self.cache.offsets, self.length)._asdict())
        return _Bins(*load_index(folder, _Bins._fields))

    def __getstate__(self) -> dict:  # data workers map the index themselves
        return {"cache": self.cache, "length": self.length}

    def __len__(self) -> int:
        return len(self._bins.ends)

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        starts, sizes, ends = self._bins
        row = blank(self.cache, self.length)
        at = 0
        for segment, j in enumerate(range(ends[i - 1] if i else 0, ends[i]), 1):
            start, size = int(starts[j]), int(sizes[j])
            copy(self.cache, row, at, start, start + size)
            row["segments"][at : at + size] = segment
            at += size
        return row

    def documents(self, i: int) -> np.ndarray:
        starts, _, ends = self._bins
        return documents_at(self.cache, starts[ends[i - 1] if i else 0 : ends[i]])


PACKINGS = {"concat": ConcatenatedRows, "best-fit": BestFitRows, "stream": RunningRows}


def best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each piece by best-fit decreasing, int64[pieces]. Every size is at most `capacity`.

    The longest remaining piece goes to the fullest bin with room for it. Pieces of equal size, and bins with equal
    room, are handled together: the fullest bin that fits a piece of size n stays so until it is full, so it takes as
    many such pieces as fit."""
    bins = np.empty(len(sizes), np.int64)
    waiting: dict[int, list[np.ndarray]] = defaultdict(list)  # room -> bins
    rooms = np.zeros(capacity + 1, bool)  # whether a bin with that room is waiting
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
            else:  # none has room: open as many new bins as needed
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


def _bins(offsets: np.ndarray, length: int) -> _Bins:
    """The index of best-fit rows."""
    lengths = np.diff(offsets)
    pieces = np.maximum(1, -(-(lengths - 1) // length))  # rows of length + 1 tokens that overlap by one
    which = np.repeat(np.arange(len(lengths)), pieces)
    part = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    sizes = np.minimum(length + 1, lengths[which] - part * length).astype(np.int32)
    starts = offsets[:-1][which] + part * length
    bins = best_fit(sizes, length + 1)
    order = np.argsort(bins, kind="stable")
    return _Bins(starts[order], sizes[order], np.cumsum(np.bincount(bins)))


def load_index(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of a packing index, memory-mapped."""
    try:
        return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    except (OSError, ValueError, EOFError) as e:
        raise UserError(f"packing index {folder} is damaged ({e}); delete it to have it made anew") from e


def write_index(folder: Path, index: Mapping[str, np.ndarray]) -> None:
    """Write a packing index, atomically; of several processes one writes and the others wait."""
    unfinished = folder.with_name(f".{folder.name}")
    try:
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
                unfinished.mkdir()
                for name, values in index.items():
                    np.save(unfinished / f"{name}.npy", values)
                unfinished.rename(folder)
        finally:
            os.close(handle)
    except OSError as e:
        raise UserError(f"cannot write the packing index {folder}: {e.strerror}; choose another data.cache") from e


def padding(length: int, channels: Mapping[str, DTypeLike] = NO_CHANNELS) -> Row:
    """A row of padding only, with these channels of these types."""
    row = {key: np.zeros(length + 1, np.int32) for key in ("tokens", "segments", "bytes")}
    row |= {"overlaps": np.array(0, np.int32)}
    return row | {name: np.zeros(length + 1, dtype) for name, dtype in channels.items()}


def read_of(row: Row, *names: str) -> Row:
    """What is known under these names of the `length` tokens of a row that are read where none is predicted from the
    one before: of overlapping rows all but the first, so that each token of the corpus is in one; of rows of whole
    documents, or pieces of long ones, all but the last, which is of a row that is full, so that every document keeps
    its first."""
    part = slice(1, None) if row.get("overlaps", 0) else slice(None, -1)
    return {name: row[name][part] for name in names if name in row}


def documents_at(cache: TokenCache, index: np.ndarray) -> np.ndarray:
    """The numbers of the documents that the tokens at these indices of the corpus are of, each once."""
    return np.unique(np.searchsorted(cache.offsets, index, side="right") - 1)


def blank(cache: TokenCache, length: int) -> Row:
    return padding(length, {name: cache.channel_type(name) for name in cache.channels})


def copy(cache: TokenCache, row: Row, at: int, start: int, stop: int) -> None:
    """Copy tokens start to stop of the corpus, and all that is known of them, to `at` in a row."""
    here = slice(at, at + stop - start)
    row["tokens"][here] = cache.read(start, stop)
    row["bytes"][here] = cache.read_bytes(start, stop)
    for name in cache.channels:
        row[name][here] = cache.read_channel(name, start, stop)


def _check_length(length: int) -> None:
    if length < 1:
        raise UserError(f"sequence length is {length}; give 1 or more")
