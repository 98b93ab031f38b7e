"""Documents as a masked model scores them: each token in turn is masked and predicted from both sides. The sum is a
pseudo-log-likelihood, which gives a pseudo-perplexity (Salazar et al. 2020, arXiv 1910.14659)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.evaluate.documents import Row, padded


@dataclass(frozen=True)
class Masked:
    """The documents of a cache, between `before` and `after`, cut into windows of at most `length` tokens with these;
    a row is a window with one of its tokens replaced by `mask`, which alone is scored."""

    cache: TokenCache
    length: int
    mask: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self._room < 1:
            around = len(self.before) + len(self.after)
            raise UserError(f"rows of {self.length} tokens have no room for text beside {around}: raise --length")

    @property
    def _room(self) -> int:
        return self.length - len(self.before) - len(self.after)

    @cached_property
    def _tokens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each token of the texts: where its window starts and stops, and where it is itself, in the cache."""
        sizes = np.diff(self.cache.offsets) - 1  # without the end-of-text
        starts = np.repeat(np.asarray(self.cache.offsets[:-1]), sizes)
        place = np.arange(len(starts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        start = starts + place // self._room * self._room
        return start, np.minimum(start + self._room, starts + np.repeat(sizes, sizes)), starts + place

    def __len__(self) -> int:
        return len(self._tokens[0])

    @property
    def sizes(self) -> np.ndarray:
        """int64[rows, 1]"""
        start, stop, _ = self._tokens
        return (stop - start + self.length - self._room)[:, None]

    @property
    def scored(self) -> np.ndarray:
        return np.ones(len(self), np.int64)

    def row(self, i: int, shape: tuple[int, ...]) -> Row:
        start, stop, at = (int(x[i]) for x in self._tokens)
        whole = np.concatenate([self.before, self.cache.read(start, stop), self.after]).astype(np.int32)
        hidden = np.arange(len(whole)) == at - start + len(self.before)
        covered = self.cache.read_bytes(at, at + 1).reshape(())
        return padded(np.where(hidden, self.mask, whole), whole, hidden, shape[0]) | {"bytes": covered}
