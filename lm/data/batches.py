"""Batches by address: the batch of step k is a pure function of (dataset, seed, k, recorded skips).

No state is carried from batch to batch, so a restart, a rewind, another number of hosts or of data workers all see the
same stream, to the bit. Row n of the run comes from one source of the mixture, and each source has its own epochs:
every row once per epoch, in a new order, cut at new boundaries. For models with memory, row r of a batch instead
continues row r of the previous batch.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import grain
import numpy as np
from numpy.typing import DTypeLike

from lm.core.errors import UserError, nearest
from lm.data.cache import TokenCache
from lm.data.mixture import Mixture
from lm.data.packing import NO_CHANNELS, PACKINGS, PackedRows, Row, evaluation_rows, padding
from lm.data.partners import beside, check_partners, with_partners
from lm.data.record_rows import Long, RecordRows, Sides, packed

PACKED = (*PACKINGS, "one")
Builder = Callable[[Row, np.random.Generator], Row]
Batch = dict[str, np.ndarray]  # an example's arrays with a leading batch axis

# What a random number is for. Seeds of different uses are derived by hashing, not by adding: grain shuffles epoch e
# with seed + e, so with the run's own seed epoch 1 of run 0 would repeat epoch 0 of run 1.
ORDER, SHIFT, EXAMPLE, RESHUFFLE, PARTNER = range(5)
VERSIONS = {"numpy": np.__version__, "grain": grain.__version__}  # their random streams may change between versions


def packed_row(row: Row, rng: np.random.Generator) -> Row:
    """The simplest example builder: returns the row itself, without its address."""
    return {key: value for key, value in row.items() if key not in ("source", "index")}


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
                seed = _seed_sequence(self.seed, self.source, RESHUFFLE, number, epoch).generate_state(1)
                n = int(grain.MapDataset.range(start, end).shuffle(seed=int(seed[0]))[n - start])
        return n

    @cached_property
    def _examples(self) -> grain.MapDataset:
        order = int(_seed_sequence(self.seed, self.source, ORDER, 0).generate_state(1)[0])
        return grain.MapDataset.range(len(self.rows)).shuffle(seed=order).map_with_index(self._example).repeat()

    def _example(self, n: int, i: int) -> Row:
        epoch, drawn = n // len(self.rows), n
        if self.copies:  # of a row, not of its turn in the epoch
            epoch %= self.copies
            drawn = epoch * len(self.rows) + i
        rows = self.rows.shifted(_shift(self.seed, self.source, epoch))
        row = beside(rows, i, self.partners, _rng(self.seed, self.source, PARTNER, drawn))
        return self.example(addressed(row, self.source, n), _rng(self.seed, self.source, EXAMPLE, drawn))


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
        return self.example(row, _rng(self.seed, self.source, EXAMPLE, drawn)) | {"reset": np.array(i == 0, np.int32)}


@dataclass(frozen=True)
class Batches:
    """Endless training batches from `sources` = ((cache, weight), ...).

    example: (row, rng) -> the arrays of one row; it draws only from rng, which is seeded by the row's address
    packing: how rows are packed, one of `PACKED`
    skips: ((step, count), ...): from `step` on, batches come from `count` addresses later, which skips the batches
        around a loss spike
    batch_warmup: ((address, rows), ...): from each address on, batches have that many rows; without any, `batch_size`.
        Batches keep their full shape: the remaining rows are empty (segment 0, weight 0)
    accumulate: microbatches per step. Row r belongs to microbatch r % accumulate; during warmup the first microbatches
        are full and the others empty, so that a step can skip those
    long, sides: of rows of whole records: see `lm.data.record_rows.packed`
    reshuffles: ((row, ..), ...): each draws the order of every source anew, from that row of it on; by the number of
        the source
    numbers: the number of each source in the run, where this is one of its stages (`lm.data.stages`); (): in order
    offsets: rows of each source that earlier stages took; (): none
    copies: epochs after which rows and examples repeat, in another order; 0: never
    partners: rows of other documents that examples read beside each (`lm.data.partners`)
    """

    sources: tuple[tuple[TokenCache, float], ...]
    length: int
    batch_size: int
    seed: int
    example: Builder = packed_row
    packing: str = "concat"
    skips: tuple[tuple[int, int], ...] = ()
    batch_warmup: tuple[tuple[int, int], ...] = ()
    accumulate: int = 1  # microbatches
    long: Long = "error"
    sides: Sides | None = None
    reshuffles: tuple[tuple[int, ...], ...] = ()
    numbers: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    copies: int = 0
    partners: int = 0

    def __post_init__(self):
        if self.batch_size < 1:
            raise UserError(f"batch size is {self.batch_size}; give 1 or more")
        if self.seed < 0:
            raise UserError(f"data seed is {self.seed}; give 0 or more")
        if self.packing not in PACKED:
            raise UserError(f"unknown packing {self.packing!r}{nearest(self.packing, PACKED)}")
        if self.partners:
            check_partners([cache for cache, _ in self.sources], self.packing)
        self._check_warmup()
        self._check_stream()
        for stream in self._streams:
            len(stream.rows)  # raises now, not at the first step, if there is too little text

    def _check_warmup(self) -> None:
        unit = self.batch_size // self.accumulate
        starts = [at for at, _ in self.batch_warmup]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise UserError(f"batch warm-up {self.batch_warmup}: steps must rise, and the first be 0")
        for _, rows in self.batch_warmup:
            if not 0 < rows <= self.batch_size or rows % unit:
                raise UserError(
                    f"batch warm-up to {rows} rows: give a multiple of {unit} (batch size {self.batch_size} in "
                    f"{self.accumulate} microbatches) up to {self.batch_size}, or more microbatches"
                )

    def _check_stream(self) -> None:
        if self.packing != "stream":
            return
        broken = {
            "a mixture of sources": len(self.sources) > 1,
            "a batch warm-up": bool(self.batch_warmup),
            "config.stages": bool(self.offsets),
            "config.train.recovery.action=reshuffle": bool(self.reshuffles),
        }
        if what := next((name for name, there in broken.items() if there), None):
            raise UserError(
                f"packing 'stream' goes on row by row, which {what} would break: leave it, or pack 'concat'"
            )
        rows = len(self._streams[0].rows)
        if rows < self.batch_size:
            raise UserError(
                f"the corpus has {rows} rows of {self.length} tokens, fewer than batch size {self.batch_size}: give "
                "more text, shorter rows or a smaller batch"
            )

    @property
    def fingerprint(self) -> str:
        """Identifies the stream of rows."""
        sources = [(cache.digest, weight) for cache, weight in self.sources]
        made_by: tuple = (
            self.length,
            self.batch_size,
            self.seed,
            self.packing,
            self.skips,
            self.batch_warmup,
            VERSIONS,
        )
        if (self.long, self.sides) != ("error", None):  # knobs that are younger than fingerprints
            made_by += (self.long, self.sides)
        made_by += tuple(more for more in (self.reshuffles, self.numbers, self.offsets) if more)
        made_by += (("copies", self.copies, "partners", self.partners),) if self.copies or self.partners else ()
        return hashlib.blake2b(repr((sources, made_by)).encode(), digest_size=16).hexdigest()

    @property
    def rows_per_epoch(self) -> tuple[int, ...]:
        """Rows per epoch of each source."""
        return tuple(len(stream.rows) for stream in self._streams)

    @property
    def left_out(self) -> tuple[Mapping[str, int], ...]:
        """Of each source, how many records are not in its rows, or not whole, by the reason."""
        return tuple(_left_out(stream.rows) for stream in self._streams)

    def address(self, k: int) -> int:
        """The index of step k's batch in the stream without skips."""
        return k + sum(count for step, count in self.skips if step <= k)

    def rows_of(self, k: int) -> int:
        """The number of non-empty rows in step k's batch."""
        return next((rows for at, rows in reversed(self.batch_warmup) if at <= self.address(k)), self.batch_size)

    def batch(self, k: int, rows: Sequence[int] | slice | None = None) -> Batch:
        """The batch of step k, or only these of its rows (those this process needs). [rows, ...]"""
        first, real = self._rows_before(self.address(k)), self.rows_of(k)
        full = real * self.accumulate // self.batch_size  # microbatches that have rows
        examples = []
        for r in _chosen(self.batch_size, rows):
            turn, part = divmod(r, self.accumulate)
            examples.append(self.row(first + turn * full + part) if part < full else self._empty)
        batch = _stack(examples)
        if "reset" in batch and k and self.address(k) != self.address(k - 1) + 1:  # after skipped batches
            batch["reset"] = np.ones_like(batch["reset"])
        return batch

    def row(self, n: int) -> Row:
        """The example for row n of the run."""
        source, i = self._mixture.locate(n)
        return self._streams[source][self._offsets[source] + i]

    def rows_by(self, k: int) -> tuple[int, ...]:
        """How many rows of each source, by its number, the steps before step k take."""
        taken = self._mixture.before(self._rows_before(self.address(k)))
        rows = dict(zip(self.known, map(sum, zip(self._offsets, taken, strict=True)), strict=True))
        return tuple(rows.get(number, 0) for number in range(max(rows) + 1))

    def iterate(
        self,
        start: int = 0,
        *,
        rows: Sequence[int] | slice | None = None,
        threads: int = 1,
        workers: int = 0,
        prefetch: int = 4,
    ) -> Iterator[Batch]:
        """`prefetched`, of these batches."""
        return prefetched(self.batch, start, rows=rows, threads=threads, workers=workers, prefetch=prefetch)

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture(tuple(weight for _, weight in self.sources))

    @cached_property
    def _streams(self) -> list[Stream] | list[ContiguousStreams]:
        known = [
            (packed(cache, self.length, self.packing, self.long, self.sides), self.seed, number, self.example)
            for number, (cache, _) in zip(self.known, self.sources, strict=True)
        ]
        if self.packing == "stream":
            return [ContiguousStreams(*parts, self.batch_size, self.copies) for parts in known]
        return [Stream(*parts, self._reshuffles_of(parts[2]), self.copies, self.partners) for parts in known]

    def _reshuffles_of(self, number: int) -> tuple[int, ...]:
        return tuple(rows[number] if number < len(rows) else 0 for rows in self.reshuffles)

    @property
    def known(self) -> tuple[int, ...]:
        """The number in the run of each source."""
        return self.numbers or tuple(range(len(self.sources)))

    @property
    def _offsets(self) -> tuple[int, ...]:
        return self.offsets or (0,) * len(self.sources)

    @cached_property
    def _empty(self) -> Row:
        return empty_row(self.length, self.example, channels_of(cache for cache, _ in self.sources), self.partners)

    def _rows_before(self, address: int) -> int:
        """Total rows of the batches before this address."""
        edges = [*self.batch_warmup, (address, 0)] if self.batch_warmup else [(0, self.batch_size), (address, 0)]
        return sum(rows * max(0, min(end, address) - at) for (at, rows), (end, _) in pairwise(edges))


def prefetched(
    batch: Callable[..., Batch],
    start: int = 0,
    *,
    rows: Sequence[int] | slice | None = None,
    threads: int = 1,
    workers: int = 0,
    prefetch: int = 4,
) -> Iterator[Batch]:
    """batch(start), batch(start + 1), ..., built `prefetch` steps ahead by threads, or by worker processes (each
    with its own threads) where examples are slow to build. The number of workers does not change the stream."""
    steps = grain.MapDataset.range(start, sys.maxsize).map(partial(batch, rows=rows))
    batches = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)


def channels_of(caches: Iterable[TokenCache]) -> dict[str, DTypeLike]:
    """The channels that rows of these caches may have, and their types."""
    return {name: cache.channel_type(name) for cache in caches for name in cache.channels}


def empty_row(length: int, example: Builder, channels: Mapping[str, DTypeLike] = NO_CHANNELS, partners: int = 0) -> Row:
    """The example for a row of padding only (segment 0), to which every example builder gives weight 0."""
    row = with_partners(padding(length, channels), [None] * partners)
    return example(addressed(row, 0, 0), np.random.default_rng(0))


@dataclass(frozen=True)
class EvalBatches:
    """All tokens of some caches in order, each a target exactly once; of whole records, all that there is to predict.
    With `packing` "stream" the text is cut into lanes, and each batch has the next piece of every lane, as in training.

    Every cache starts a new batch. The last batch of a cache is filled with rows of padding (segment 0, weight 0).
    Random parts of examples, such as masks, are the same at every evaluation.
    """

    caches: tuple[TokenCache, ...]
    length: int
    batch_size: int
    example: Builder = packed_row
    seed: int = 0
    packing: str = "concat"
    long: Long = "error"
    sides: Sides | None = None
    partners: int = 0

    def __len__(self) -> int:
        return self.ranges[-1].stop

    @cached_property
    def ranges(self) -> tuple[range, ...]:
        """The range of batch numbers of each cache."""
        ends = np.cumsum([0] + [-(-len(rows) // self.batch_size) for rows in self._rows]).tolist()
        return tuple(map(range, ends, ends[1:]))

    def batch(self, k: int, rows: Sequence[int] | slice | None = None) -> Batch:
        """Batch k of len(self), or only these of its rows. [rows, ...]"""
        if not 0 <= k < len(self):
            raise IndexError(k)
        source, of_source = next((i, r) for i, r in enumerate(self.ranges) if k in r)
        at, steps, chosen = k - of_source.start, len(of_source), _chosen(self.batch_size, rows)
        if self.packing != "stream":
            return _stack([self._example(source, at * self.batch_size + j) for j in chosen])
        batch = _stack([self._example(source, j * steps + at) for j in chosen])
        return batch | {"reset": np.full(len(batch["tokens"]), at == 0, np.int32)}

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(len(self)))

    @cached_property
    def _rows(self) -> list[PackedRows]:
        return [
            packed(cache, self.length, self.packing, self.long, self.sides)
            if cache.whole or self.packing == "one"
            else evaluation_rows(cache, self.length, self.packing)
            for cache in self.caches
        ]

    @property
    def left_out(self) -> tuple[Mapping[str, int], ...]:
        """As of `Batches`."""
        return tuple(map(_left_out, self._rows))

    def _example(self, source: int, n: int) -> Row:
        if n >= len(self._rows[source]):
            return empty_row(self.length, self.example, channels_of(self.caches), self.partners)
        row = beside(self._rows[source], n, self.partners, _rng(self.seed, source, PARTNER, n))
        return self.example(addressed(row, source, n), _rng(self.seed, source, EXAMPLE, n))


def _left_out(rows: PackedRows) -> Mapping[str, int]:
    return rows.left_out if isinstance(rows, RecordRows) else {}


def _shift(seed: int, source: int, epoch: int) -> int:
    """How far an epoch's row boundaries are shifted, in tokens."""
    return int(_seed_sequence(seed, source, SHIFT, epoch).generate_state(1, np.uint64)[0])


def _rng(*what: int) -> np.random.Generator:
    return np.random.default_rng(_seed_sequence(*what))


def _seed_sequence(*what: int) -> np.random.SeedSequence:
    """From the run's seed, a source, what it is for, and an index."""
    return np.random.SeedSequence(what[0], spawn_key=what[1:])


def _chosen(batch_size: int, rows: Sequence[int] | slice | None) -> Sequence[int]:
    return range(batch_size)[rows or slice(None)] if rows is None or isinstance(rows, slice) else rows


def _stack(examples: list[Row]) -> Batch:
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
