"""Which tokens of a row are hidden: one by one, in whole words, in spans of words, in given phrases.

All hide as many tokens as a budget allows, but one word or phrase at least, and none of the text's special tokens."""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError


class MaskableRow(NamedTuple):
    """What is known of the tokens of a row, each [S].

    text: bool, those that may be hidden
    segments: numbers of documents; 0 is padding
    starts: bool, with which a word begins; None where nobody asked
    spans: numbers of given phrases within a document, 0 outside; None where nobody asked"""

    text: np.ndarray
    segments: np.ndarray
    starts: np.ndarray | None = None
    spans: np.ndarray | None = None


class Hidden(NamedTuple):
    """at: indices of the hidden tokens, int64 [n]
    group: of each, the number of those that are replaced in the same way, int64 [n], from 0"""

    at: np.ndarray
    group: np.ndarray


@runtime_checkable
class Hiding(Protocol):
    """A component that draws what is hidden."""

    words: ClassVar[bool]  # whether it reads `starts`
    channels: ClassVar[tuple[str, ...]]  # what it reads of rows besides tokens

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        """At most `budget` tokens or, if all that could be hidden is longer, the shortest of it."""


@component
class SingleTokens:
    """Any tokens (BERT, Devlin et al. 2019, arXiv 1810.04805)."""

    words: ClassVar[bool] = False
    channels: ClassVar[tuple[str, ...]] = ()

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        at = rng.permutation(np.flatnonzero(row.text))[:budget]
        return Hidden(at, np.arange(len(at)))


@component
class WholeWords:
    """All tokens of a word or none, and each is replaced by itself (BERT's later release, May 2019; Cui et al. 2019,
    arXiv 1906.08101). A word that the budget has no room for is passed over."""

    words: ClassVar[bool] = True
    channels: ClassVar[tuple[str, ...]] = ()

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        at = _some(words_of(row), budget, rng)[0]
        return Hidden(at, np.arange(len(at)))


@component
class GivenSpans:
    """Phrases and entities that the data marks (`config.data.records.spans`) as a whole, and words or single tokens
    outside of them (ERNIE, Sun et al. 2019, arXiv 1904.09223). The tokens of a phrase are replaced in the same way.

    whole_words: whether, outside of phrases, words are hidden whole
    outside: whether anything outside of phrases is hidden"""

    words: ClassVar[bool] = True
    channels: ClassVar[tuple[str, ...]] = ("span",)

    whole_words: bool = True
    outside: bool = True

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        assert row.spans is not None and row.starts is not None
        inside = row.spans > 0
        breaks = row.starts | inside if self.whole_words else np.ones(len(row.text), bool)
        units = words_of(row._replace(text=row.text & ~inside, starts=breaks)) if self.outside else _none()
        phrases = _runs(row.text & inside, row.segments, row.spans)
        return Hidden(*_some(np.concatenate([units, phrases]), budget, rng))


@component
class GeometricSpans:
    """Spans of whole words, of geometric length, from anywhere (SpanBERT, Joshi et al. 2020, arXiv 1907.10529, section
    3.1); the tokens of a span are replaced in the same way. The last span is cut to the words that the budget leaves
    room for.

    Spans do not touch, nor reach to the ends of their document's part of the row, so that a token of the same document
    is seen on both sides of each.

    p: of the geometric distribution
    longest: words; longer spans are drawn again, which makes a mean of 3.8"""

    words: ClassVar[bool] = True
    channels: ClassVar[tuple[str, ...]] = ()

    p: float = 0.2
    longest: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise UserError(f"p={self.p} of the lengths of spans: give a number between 0 and 1, such as 0.2")
        if self.longest < 1:
            raise UserError(f"longest={self.longest} span to hide: give 1 or more words")

    @property
    def shares(self) -> np.ndarray:
        """Of spans of 1, 2, .. `longest` words."""
        shares = self.p * (1 - self.p) ** np.arange(self.longest)
        return shares / shares.sum()

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        spans = _spans(words_of(row), row.segments, self.shares, budget, rng, apart=True)
        return Hidden(_indices(spans), np.repeat(np.arange(len(spans)), spans[:, 1] - spans[:, 0]))


@component
class NGrams:
    """One to some words in a row (MacBERT, Cui et al. 2020, arXiv 2004.13922); each word is replaced by itself.

    shares: of single words, of two in a row, and so on"""

    words: ClassVar[bool] = True
    channels: ClassVar[tuple[str, ...]] = ()

    shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares) < 0 or sum(self.shares) <= 0:
            raise UserError(
                f"shares={self.shares} of words in a row: give numbers of which none is below 0, but some 0"
            )

    def __call__(self, row: MaskableRow, budget: int, rng: np.random.Generator) -> Hidden:
        words = words_of(row)
        shares = np.array(self.shares) / sum(self.shares)
        at = np.sort(_indices(_spans(words, row.segments, shares, budget, rng, apart=False)))
        return Hidden(at, np.unique(np.searchsorted(words[:, 0], at, side="right"), return_inverse=True)[1])


def words_of(row: MaskableRow) -> np.ndarray:
    """int64 [words, 2]: where each word begins and ends, of those that may be hidden, in order."""
    assert row.starts is not None
    return _runs(row.text, row.segments, np.cumsum(row.starts))


def _runs(where: np.ndarray, *same: np.ndarray) -> np.ndarray:
    """int64 [runs, 2]: from and to which index `where` is true and each of `same` stays the same."""
    fresh = np.ones(len(where), bool)
    fresh[1:] = ~where[:-1]
    for values in same:
        fresh[1:] |= values[1:] != values[:-1]
    first = np.flatnonzero(where & fresh)
    ends = np.append(np.flatnonzero(fresh[1:] | ~where[1:]) + 1, len(where))
    return np.stack([first, ends[np.searchsorted(ends, first, side="right")]], axis=1)


def _none() -> np.ndarray:
    return np.zeros((0, 2), np.int64)


def _indices(ranges: np.ndarray) -> np.ndarray:
    """The indices of these ranges, one after the other."""
    return np.concatenate([np.arange(first, end) for first, end in ranges.tolist()] or [np.zeros(0, np.int64)])


def _some(units: np.ndarray, budget: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The indices of some of the units, at most `budget`, in random order, and the number of the unit of each. One that
    there is no room left for is passed over; where that is all, it is the shortest one."""
    taken, room = [], budget
    for first, end in units[rng.permutation(len(units))].tolist():
        if end - first <= room:
            taken.append((first, end))
            room -= end - first
        if not room:
            break
    ranges = np.array(taken, np.int64) if taken else _shortest(units)
    return _indices(ranges), np.repeat(np.arange(len(ranges)), ranges[:, 1] - ranges[:, 0])


def _spans(
    words: np.ndarray, segments: np.ndarray, shares: np.ndarray, budget: int, rng: np.random.Generator, apart: bool
) -> np.ndarray:
    """int64 [spans, 2]: ranges of tokens, of words in a row, at most `budget` in all, or else the shortest word.
    Lengths are drawn by `shares`; where there is no room for one, a shorter span is taken. `apart`: they leave a token
    between them and to the ends of segments."""
    free = np.ones(len(words), bool)
    if apart:
        first, end = words[:, 0], words[:, 1]
        padded = np.concatenate([[0], segments, [0]])
        free = (padded[first] == segments[first]) & (padded[end + 1] == segments[first])
    allowed = words[free]
    joined = np.zeros(len(words), bool)  # whether a word goes on from the one before
    if len(words):
        joined[1:] = (words[1:, 0] == words[:-1, 1]) & (segments[words[1:, 0]] == segments[words[:-1, 0]])
    taken, room = [], budget
    for wanted in 1 + rng.choice(len(shares), budget, p=shares):
        reach = _reach(free, joined)
        if not room or not reach.any():
            break
        length = min(int(wanted), int(reach.max()))
        start = int(rng.choice(np.flatnonzero(reach >= length)))
        sizes = words[start : start + length, 1] - words[start, 0]
        fitting = int(np.searchsorted(sizes, room, side="right"))  # whole words only
        if fitting:
            taken.append((int(words[start, 0]), int(words[start + fitting - 1, 1])))
            room -= int(sizes[fitting - 1])
        if fitting < length:
            if taken:
                break
            free &= words[:, 1] - words[:, 0] <= room  # of a budget that is shorter than some words
            continue
        low, high = start, start + length
        if apart:  # the words beside it stay
            low -= bool(joined[start])
            high += bool(high < len(words) and joined[high])
        free[low:high] = False
    return np.array(taken, np.int64) if taken else _shortest(allowed)


def _shortest(units: np.ndarray) -> np.ndarray:
    """int64 [1, 2]: the first of the shortest units, if there are any."""
    return units[np.argsort(units[:, 1] - units[:, 0], kind="stable")[:1]]


def _reach(free: np.ndarray, joined: np.ndarray) -> np.ndarray:
    """How many free words in a row there are from each on."""
    index = np.arange(len(free))
    stops = np.append(np.where(~free | ~joined, index, len(free)), len(free))  # where a run from before ends
    ends = np.minimum.accumulate(stops[::-1])[::-1][1:]
    return np.where(free, ends - index, 0)
