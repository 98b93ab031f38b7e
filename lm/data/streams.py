"""The rows of one source as an endless stream: row n is a pure function of (text, seed, source, n)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import grain
import numpy as np

from lm.data.packing import PackedRows, Row
from lm.data.partners import beside

Builder = Callable[[Row, np.random.Generator], Row]

# What a random number is for. Seeds of different uses are derived by hashing, not by adding: grain shuffles epoch e
# with seed + e, so with the run's own seed epoch 1 of run 0 would repeat epoch 0 of run 1.
ORDER, SHIFT, EXAMPLE, RESHUFFLE, PARTNER = range(5)
VERSIONS = {"numpy": np.__version__, "grain": grain.__version__}  # their random streams may change between versions


def packed_row(row: Row, rng: np.random.Generator) -> Row:
    """The simplest example builder: returns the row itself, without its address."""
    return {key: value for key, value in row.items() if key not in ("source", "index", "overlaps")}


def addressed(row: Row, source: int, index: int) -> Row:
    """A row with its address: the number of its source, and its index in the stream of that."""
    return row | {"source": np.array(source, np.int32), "index": np.array(index, np.int64)}


@dataclass(frozen=True)
class Stream:
    """[n] -> the example of row n of one source, over endless epochs."""

    rows: PackedRows
    seed: int
    source: int  # its number in the run, so that no two sources share random bits
    example: Builder
    reshuffles: tuple[int, ...] = ()  # from each of these n on, rows come in another order
    copies: int = 0
    partners: int = 0

    def __getitem__(self, n: int) -> Row:
        return self._examples[self._reshuffled(n)]

    def _reshuffled(self, n: int) -> int:
        """The n of which row n was before: what was left of its epoch is permuted, so that no row is lost."""
        for number, first in reversed([*enumerate(self.reshuffles)]):
            if n >= first:
                epoch = n // len(self.rows)
                start, end = max(first, epoch * len(self.rows)), (epoch + 1) * len(self.rows)
                seed = seed_sequence(self.seed, self.source, RESHUFFLE, number, epoch).generate_state(1)
                n = int(grain.MapDataset.range(start, end).shuffle(seed=int(seed[0]))[n - start])
        return n

    @cached_property
    def _examples(self) -> grain.MapDataset:
        order = int(seed_sequence(self.seed, self.source, ORDER, 0).generate_state(1)[0])
        return grain.MapDataset.range(len(self.rows)).shuffle(seed=order).map_with_index(self._example).repeat()

    def _example(self, n: int, i: int) -> Row:
        epoch, drawn = n // len(self.rows), n
        if self.copies:  # of a row, not of its turn in the epoch
            epoch %= self.copies
            drawn = epoch * len(self.rows) + i
        rows = self.rows.shifted(_shift(self.seed, self.source, epoch))
        row = beside(rows, i, self.partners, rng_of(self.seed, self.source, PARTNER, drawn))
        return self.example(addressed(row, self.source, n), rng_of(self.seed, self.source, EXAMPLE, drawn))


@dataclass(frozen=True)
class ContiguousStreams:
    """[n] -> the example of row n of one source, which continues row n - count (Transformer-XL, Dai et al. 2019, arXiv
    1901.02860): the text is cut into `count` lanes of equal length that are read side by side, and cut elsewhere in the
    next epoch. `reset` is 1 where a lane begins: memory from another part of the text must be cleared."""

    rows: PackedRows
    seed: int
    source: int
    example: Builder
    count: int
    copies: int = 0

    @property
    def length(self) -> int:
        """Rows per lane."""
        return len(self.rows) // self.count

    def __getitem__(self, n: int) -> Row:
        turn, lane = divmod(n, self.count)
        epoch, i = divmod(turn, self.length)
        epoch = epoch % self.copies if self.copies else epoch
        row = self.rows.shifted(_shift(self.seed, self.source, epoch))[lane * self.length + i]
        row = addressed(row, self.source, n)
        drawn = (epoch * self.length + i) * self.count + lane  # n, if nothing repeats
        return self.example(row, rng_of(self.seed, self.source, EXAMPLE, drawn)) | {"reset": np.array(i == 0, np.int32)}


def _shift(seed: int, source: int, epoch: int) -> int:
    """How far an epoch's row boundaries are shifted, in tokens."""
    return int(seed_sequence(seed, source, SHIFT, epoch).generate_state(1, np.uint64)[0])


def rng_of(*what: int) -> np.random.Generator:
    return np.random.default_rng(seed_sequence(*what))


def seed_sequence(*what: int) -> np.random.SeedSequence:
    """From the run's seed, a source, what it is for, and an index."""
    return np.random.SeedSequence(what[0], spawn_key=what[1:])
