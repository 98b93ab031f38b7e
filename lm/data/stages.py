"""Batches of a run in stages: from some steps on, other sources, rates, objectives or lengths.

The batch of step k is a pure function of its address here too. A source that goes on in the next stage, in rows of the
same length, goes on where it stopped; a new one begins with its first epoch."""

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lm.core.errors import UserError
from lm.data.batches import Batch, Batches, prefetched
from lm.data.cache import TokenCache


@dataclass(frozen=True)
class StagedBatches:
    """Those of `stages` = ((first step, batches), ...), the first from step 0 on. `skips` and `reshuffles` are as of
    `Batches`, in steps of the run: skipped batches stay skipped in the next stage."""

    stages: tuple[tuple[int, Batches], ...]
    skips: tuple[tuple[int, int], ...] = ()
    reshuffles: tuple[tuple[int, ...], ...] = ()

    @property
    def batch_size(self) -> int:
        return self.stages[0][1].batch_size

    def stage(self, k: int) -> int:
        """The number of the stage that step k is in."""
        return max(number for number, (first, _) in enumerate(self.stages) if first <= k)

    def address(self, k: int) -> int:
        """The index of step k's batch in the stream without skips."""
        return k + sum(count for step, count in self.skips if step <= k)

    def rows_of(self, k: int) -> int:
        """The number of non-empty rows in step k's batch."""
        batches, own = self._of(k)
        return batches.rows_of(own)

    def rows_by(self, k: int) -> tuple[int, ...]:
        """How many rows of each source, by its number in the run, the steps before step k take."""
        rows: dict[int, int] = {}
        for number, (first, batches) in enumerate(zip([first for first, _ in self.stages], self._own, strict=True)):
            if number and first >= k:
                break
            end = self.stages[number + 1][0] if number + 1 < len(self.stages) else k
            taken = batches.rows_by(min(k, end) - first)
            rows |= {source: taken[source] for source in batches.known}
        return tuple(rows.get(number, 0) for number in range(max(rows) + 1))

    def batch(self, k: int, rows: Sequence[int] | slice | None = None) -> Batch:
        """The batch of step k, or only these of its rows. [rows, ...]; shapes may differ from stage to stage."""
        batches, own = self._of(k)
        return batches.batch(own, rows)

    def iterate(self, start: int = 0, **options: Any) -> Iterator[Batch]:
        """As `Batches.iterate`."""
        return prefetched(self.batch, start, **options)

    @property
    def fingerprint(self) -> str:
        """Identifies the stream of rows."""
        of_stages = [(first, batches.fingerprint) for (first, _), batches in zip(self.stages, self._own, strict=True)]
        return hashlib.blake2b(repr(of_stages).encode(), digest_size=16).hexdigest()

    def _of(self, k: int) -> tuple[Batches, int]:
        number = self.stage(k)
        return self._own[number], k - self.stages[number][0]

    @cached_property
    def _own(self) -> list[Batches]:
        return [
            replace(
                batches,
                skips=tuple((max(0, step - first), count) for step, count in self.skips),
                reshuffles=self.reshuffles,
            )
            for first, batches in self.stages
        ]


def numbered(stages: Sequence[tuple[Sequence[TokenCache], Hashable]]) -> list[tuple[int, ...]]:
    """The number in the run of each source of each stage = (caches, how they are cut into rows): the same text in the
    same rows has one number."""
    known: dict[Hashable, int] = {}
    return [tuple(known.setdefault((cache.digest, cut), len(known)) for cache in caches) for caches, cut in stages]


def in_stages(stages: Sequence[tuple[int, Batches]]) -> StagedBatches:
    """Batches of the whole run from those of each stage by itself, whose sources are numbered for the run."""
    taken: dict[int, int] = {}
    made = []
    for number, (first, batches) in enumerate(stages):
        if batches.packing == "stream":
            raise UserError(
                "packing 'stream' goes on row by row, which config.stages would break: leave them, or pack 'concat'"
            )
        if number:
            offsets = tuple(taken.get(source, 0) for source in batches.known)
            batches = replace(batches, offsets=offsets, batch_warmup=_from(batches.batch_warmup, first))
        if number + 1 < len(stages):
            rows = batches.rows_by(stages[number + 1][0] - first)
            taken |= {source: rows[source] for source in batches.known}
        made.append((first, batches))
    return StagedBatches(tuple(made))


def _from(warmup: tuple[tuple[int, int], ...], first: int) -> tuple[tuple[int, int], ...]:
    """A batch warm-up as it is from step `first` on."""
    begun = [rows for at, rows in warmup if at <= first]
    return ((0, begun[-1]), *((at - first, rows) for at, rows in warmup if at > first)) if warmup else ()
