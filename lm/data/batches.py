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
from lm.data.packing import NO_CHANNELS, PACKINGS, PackedRows, Row, padding
from lm.data.partners import check_partners, with_partners
from lm.data.record_rows import Long, RecordRows, Sides, packed
from lm.data.streams import VERSIONS, Builder, ContiguousStreams, Stream, addressed, packed_row

PACKED = (*PACKINGS, "one")
Batch = dict[str, np.ndarray]  # an example's arrays with a leading batch axis


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
        return tuple(left_out_of(stream.rows) for stream in self._streams)

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
        for r in row_numbers(self.batch_size, rows):
            turn, part = divmod(r, self.accumulate)
            examples.append(self.row(first + turn * full + part) if part < full else self._empty)
        batch = stack(examples)
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


def left_out_of(rows: PackedRows) -> Mapping[str, int]:
    """How many records are not in these rows, or not whole, by the reason."""
    return rows.left_out if isinstance(rows, RecordRows) else {}


def row_numbers(batch_size: int, rows: Sequence[int] | slice | None) -> Sequence[int]:
    """Numbers of rows of a batch: all, or these."""
    return range(batch_size)[rows or slice(None)] if rows is None or isinstance(rows, slice) else rows


def stack(examples: list[Row]) -> Batch:
    """Examples of the same arrays, as a batch of them."""
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
