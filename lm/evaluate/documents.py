"""Documents as a model reads them, one per row: begin-of-text, text, end-of-text, in windows if that is too long.

A row has tokens, targets (the next token of each), weights (1 where a target is scored), segments and positions
[width], and the bytes of text that its scored targets cover.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.data.cache import TokenCache

Row = dict[str, np.ndarray]


class Windows(NamedTuple):
    """For each window, int64[windows]: its document, the range [start, stop) of that document's tokens it reads, and
    the first target it scores (all targets from there up to and including token `stop` are scored)."""

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class DocumentWindows:
    """The documents of a cache, each preceded by the tokens `before` and alone in its rows. Without `end` the
    end-of-text is dropped, because the cache of a vocabulary without one holds a substitute.

    Each token is scored once, except those of `before`, and the first token of a text that nothing precedes (with
    `first` off, every text's first token). A model reads at most `length` tokens: longer documents are cut, and the
    next window starts with the last token scored. With a `stride`, windows of `length` tokens (the last of which is
    scored but not read) start that many tokens apart, and each scores what the previous one did not reach: after the
    first window every token has at least length - stride tokens of context, as in Hugging Face's guide."""

    cache: TokenCache
    length: int
    before: tuple[int, ...] = ()
    stride: int | None = None
    first: bool = True
    end: bool = True

    def __post_init__(self) -> None:
        if self.stride is not None and not 0 < self.stride < self.length:
            raise UserError(
                f"a stride of {self.stride} does not suit rows of {self.length} tokens: give 1 to {self.length - 1}"
            )

    @cached_property
    def windows(self) -> Windows:
        tokens = np.diff(self.cache.offsets) + len(self.before) - (not self.end)
        given = max(len(self.before) + (not self.first), 1)  # tokens that are never scored
        reach, step = (self.length, self.length) if self.stride is None else (self.length - 1, self.stride)
        count = np.where(tokens > given, 1 + np.maximum(0, -(-(tokens - 1 - reach) // step)), 0)
        document = np.repeat(np.arange(len(tokens)), count)
        start = (np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)) * step
        stop = np.minimum(start + reach, tokens[document] - 1)
        first = np.maximum(np.where(start == 0, 1, start - step + reach + 1), given)
        some = first <= stop
        return Windows(*(x[some] for x in (document, start, stop, first)))

    def __len__(self) -> int:
        return len(self.windows.start)

    @property
    def sizes(self) -> np.ndarray:
        """int64[rows, 1]: number of tokens read per row."""
        return (self.windows.stop - self.windows.start)[:, None]

    @property
    def scored(self) -> np.ndarray:
        """int64[rows]: number of tokens scored per row."""
        return self.windows.stop - self.windows.first + 1

    def row(self, i: int, shape: tuple[int, ...]) -> Row:
        """Row i, padded to the width `shape`."""
        document, start, stop, first = (int(x[i]) for x in self.windows)
        tokens, covered = self._read(document, start, stop + 1)
        scored = np.arange(start + 1, stop + 1) >= first
        return padded(tokens[:-1], tokens[1:], scored, shape[0]) | {
            "bytes": np.array(covered[1:][scored].sum(), np.int32)
        }

    def _read(self, document: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [start, stop) of a document with its preceding tokens, and the bytes of text that they cover."""
        lead, offset = np.array(self.before[start:stop], np.int32), int(self.cache.offsets[document]) - len(self.before)
        begin, end = offset + max(start, len(self.before)), offset + max(stop, len(self.before))
        tokens, covered = self.cache.read(begin, end), self.cache.read_bytes(begin, end)
        return np.concatenate([lead, tokens]), np.concatenate([np.zeros_like(lead), covered])


def padded(tokens: np.ndarray, targets: np.ndarray, scored: np.ndarray, width: int) -> Row:
    """The arrays of a row; padding is segment 0 at position 0, so that no table of positions grows by it."""
    rest = (0, width - len(tokens))
    rows = {"tokens": tokens, "targets": targets, "segments": np.ones_like(tokens), "positions": np.arange(len(tokens))}
    row = {name: np.pad(value, rest).astype(np.int32) for name, value in rows.items()}
    return row | {"weights": np.pad(scored, rest).astype(np.float32)}
