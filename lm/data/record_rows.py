"""Rows of whole records: pairs, chats, labelled texts, of which no part means anything without the rest.

A row holds one record, or as many as fit, each a segment of its own. For an encoder-decoder (`sides`) a record's first
text, that of `part` 0, and its second one have room of their own, and both are filled. What becomes of a record that
does not fit is for the user to say (`long`), and counted.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.packing import PACKINGS, PackedRows, Row, best_fit, blank, copy, documents_at, load_index, write_index

Sides = tuple[int, int]  # tokens of inputs, and of targets, that a row has room for
Long = Literal["error", "drop", "cut"]
OPEN = 128  # rows that are tried for a pair


def packed(
    cache: TokenCache, length: int, packing: str, long: Long = "error", sides: Sides | None = None
) -> PackedRows:
    """The rows of a cache. `long`: what becomes of records that do not fit whole; `sides`: the room that an
    encoder-decoder's objective has for the texts of a pair (`Needs.sides`).

    Raises `UserError` for records that would be cut into pieces."""
    whole = cache.whole or sides is not None
    if whole and packing in ("concat", "stream"):
        raise UserError(
            f"config.data.packing={packing!r} cuts records in pieces, so that part of one would stand alone: "
            "set it to best-fit (as many to a row as fit) or to one"
        )
    if whole or packing == "one":
        return RecordRows(cache, length, packing == "one", long, sides)
    return PACKINGS[packing](cache, length)


class _Pieces(NamedTuple):
    """Row i holds pieces ends[i - 1] to ends[i]; piece j is the sizes[j] tokens from starts[j] on, of the row's record
    number segments[j]."""

    starts: np.ndarray  # int64[pieces]
    sizes: np.ndarray  # int32[pieces]
    segments: np.ndarray  # int32[pieces]
    ends: np.ndarray  # int64[rows]
    left_out: np.ndarray  # int64[2]: records that are dropped, and cut


@dataclass(frozen=True)
class RecordRows:
    """Rows of `length` + 1 tokens, each with whole records: with one (`one`), or by best fit with as many as there is
    room for. The index is kept in the cache's folder."""

    cache: TokenCache
    length: int
    one: bool = False
    long: Long = "error"
    sides: Sides | None = None

    def __post_init__(self) -> None:
        if self.sides is not None and "part" not in self.cache.channels:
            raise UserError(
                "an encoder-decoder reads one text and writes another, but these records are single texts: set "
                "config.data.records.type=Pairs"
            )

    def shifted(self, shift: int) -> "RecordRows":
        return self

    @cached_property
    def _pieces(self) -> _Pieces:
        name = "-".join(["one" if self.one else "records", str(self.length), self.long, *map(str, self.sides or ())])
        folder = self.cache.directory / name
        if not folder.exists():
            write_index(folder, self._made()._asdict())
        return _Pieces(*load_index(folder, _Pieces._fields))

    @property
    def left_out(self) -> dict[str, int]:
        """How many records are not in the rows, or not whole, and why."""
        dropped, cut = self._pieces.left_out.tolist()
        why = "longer than a row (data.long)"
        if self.long == "cut":
            why = "all that a row has room for is only read, nothing predicted (data.length)"
        found = {f"records left out: {why}": dropped, "records cut to fit (data.long)": cut}
        return {reason: count for reason, count in found.items() if count}

    def __getstate__(self) -> dict:  # data workers map the index themselves
        return {name: value for name, value in vars(self).items() if name != "_pieces"}

    def __len__(self) -> int:
        return len(self._pieces.ends)

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        starts, sizes, segments, ends, _ = self._pieces
        row = blank(self.cache, self.length)
        at = 0
        for j in range(ends[i - 1] if i else 0, ends[i]):
            start, size = int(starts[j]), int(sizes[j])
            copy(self.cache, row, at, start, start + size)
            row["segments"][at : at + size] = segments[j]
            at += size
        return row

    def documents(self, i: int) -> np.ndarray:
        starts, _, _, ends, _ = self._pieces
        return documents_at(self.cache, starts[ends[i - 1] if i else 0 : ends[i]])

    def _made(self) -> _Pieces:
        """The index, computed."""
        offsets = np.asarray(self.cache.offsets)
        needs, room = self._needs(offsets)
        fits = np.all(needs <= room, axis=1)
        if self.long == "error" and not fits.all():
            raise self._too_long(needs, room, fits)
        kept = np.flatnonzero(fits) if self.long == "drop" else np.arange(len(needs))
        cut = ~fits[kept]
        if cut.any():
            kept = kept[~cut | self._predicts(offsets, kept, needs, room)]
            cut = ~fits[kept]
        if not len(kept):
            raise UserError(f"no record fits into rows of {self.length} tokens: raise config.data.length")
        bins = np.arange(len(kept)) if self.one else _bins(np.minimum(needs, room)[kept], room)
        order = np.argsort(bins, kind="stable")
        starts, sizes, segments, rows = [], [], [], []
        number, before = 0, -1
        for record, which, is_cut in zip(kept[order].tolist(), bins[order].tolist(), cut[order].tolist(), strict=True):
            number = number + 1 if which == before else 1
            before = which
            for start, size in self._ranges(offsets, record, needs, room, is_cut):
                starts.append(start)
                sizes.append(size)
                segments.append(number)
                rows.append(which)
        return _Pieces(
            np.array(starts, np.int64),
            np.array(sizes, np.int32),
            np.array(segments, np.int32),
            np.cumsum(np.bincount(rows)),
            np.array([len(needs) - len(kept), cut.sum()], np.int64),
        )

    def _needs(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64[records, dimensions]: tokens of each record, and with sides those of its inputs and its targets; and
        how many of each a row has room for."""
        total = np.diff(offsets)
        if self.sides is None:
            # What is read to be labelled has nothing behind it: no token is a target only.
            return total[:, None], np.array([self.length + ("label" not in self.cache.channels)])
        second = np.concatenate([np.asarray(shard > 0) for shard in self.cache.channels["part"]])
        written = np.add.reduceat(second.astype(np.int64), offsets[:-1])
        inputs, targets = self.sides
        # The last token of a target is read by nobody.
        return np.stack([total, total - written, written - 1], 1), np.array([self.length + 1, inputs, targets])

    def _ranges(
        self, offsets: np.ndarray, record: int, needs: np.ndarray, room: np.ndarray, cut: bool
    ) -> list[tuple[int, int]]:
        """(start, size) of what is kept of a record: its beginning, and the last token of its inputs."""
        start, total = int(offsets[record]), int(needs[record, 0])
        if not cut:
            return [(start, total)]
        if self.sides is None:
            kept = int(room[0])
            if "label" not in self.cache.channels or kept < 2:
                return [(start, kept)]
            return [(start, kept - 1), (start + total - 1, 1)]  # with the last token, where texts end
        inputs, targets = int(needs[record, 1]), min(int(needs[record, 2]), int(room[2])) + 1
        most = min(int(room[1]), int(room[0]) - targets)
        if inputs <= most:
            return [(start, inputs), (start + inputs, targets)]
        return [(start, most - 1), (start + inputs - 1, 1), (start + inputs, targets)]

    def _predicts(self, offsets: np.ndarray, kept: np.ndarray, needs: np.ndarray, room: np.ndarray) -> np.ndarray:
        """bool[kept]: whether anything is left to predict of each record, were it cut, and anything to read."""
        if self.sides is not None:
            return np.full(len(kept), room[1] > 1 and room[0] > room[2] + 2)
        if "target" not in self.cache.channels:
            return np.full(len(kept), True)
        starts = offsets[kept]
        sizes = np.minimum(needs[kept, 0], room[0])
        targets = np.concatenate([np.asarray(shard > 0) for shard in self.cache.channels["target"]])
        counts = np.concatenate([[0], np.cumsum(targets)])
        return counts[starts + sizes] > counts[starts]

    def _too_long(self, needs: np.ndarray, room: np.ndarray, fits: np.ndarray) -> UserError:
        most = needs.max(0).tolist()
        if self.sides is None:
            what = f"the longest has {most[0]:,} tokens, a row {room[0]:,}: raise config.data.length"
        else:
            what = (
                f"the longest have {most[1]:,} tokens of inputs and {most[2]:,} of targets, {most[0]:,} together, and "
                f"a row has room for {room[1]:,}, {room[2]:,} and {room[0]:,}: raise config.objective.inputs, "
                "config.objective.targets and config.data.length (their sum)"
            )
        return UserError(
            f"{int((~fits).sum()):,} of {len(fits):,} records do not fit into a row, the first of them record "
            f"{int(np.argmin(fits)) + 1:,}; {what}, or set config.data.long=drop or cut"
        )


def _bins(needs: np.ndarray, room: np.ndarray) -> np.ndarray:
    """The row of each record, int64[records], none of which needs more than the room of a row: by best fit, the largest
    first. With several kinds of room (those of an encoder-decoder) a record goes to that one of the `OPEN` rows last
    begun, the fullest closed before the others, which it leaves the least room in."""
    if needs.shape[1] == 1:
        return best_fit(needs[:, 0], int(room[0]))
    bins = np.empty(len(needs), np.int64)
    left, names = np.zeros((0, len(room)), np.int64), np.zeros(0, np.int64)  # of the open rows
    made = 0
    for record in np.argsort(-(needs / room).max(1), kind="stable"):
        after = left - needs[record]
        possible = np.flatnonzero((after >= 0).all(1))
        if len(possible):
            chosen = possible[np.argmin((after[possible] / room).sum(1))]
            left[chosen] = after[chosen]
            bins[record] = names[chosen]
            continue
        if len(left) == OPEN:
            fullest = np.argmin((left / room).min(1))
            left, names = np.delete(left, fullest, 0), np.delete(names, fullest)
        left, names = np.append(left, [room - needs[record]], 0), np.append(names, made)
        bins[record] = made
        made += 1
    return bins
