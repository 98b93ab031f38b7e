"""Batches of an evaluation: each token of its texts once, in order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lm.data.batches import Batch, channels_of, empty_row, left_out_of, row_numbers, stack
from lm.data.cache import TokenCache
from lm.data.packing import PackedRows, Row, evaluation_rows
from lm.data.partners import beside
from lm.data.record_rows import Long, Sides, packed
from lm.data.streams import EXAMPLE, PARTNER, Builder, addressed, packed_row, rng_of


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
        at, steps, chosen = k - of_source.start, len(of_source), row_numbers(self.batch_size, rows)
        if self.packing != "stream":
            return stack([self._example(source, at * self.batch_size + j) for j in chosen])
        batch = stack([self._example(source, j * steps + at) for j in chosen])
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
        return tuple(map(left_out_of, self._rows))

    def _example(self, source: int, n: int) -> Row:
        if n >= len(self._rows[source]):
            return empty_row(self.length, self.example, channels_of(self.caches), self.partners)
        row = beside(self._rows[source], n, self.partners, rng_of(self.seed, source, PARTNER, n))
        return self.example(addressed(row, source, n), rng_of(self.seed, source, EXAMPLE, n))
