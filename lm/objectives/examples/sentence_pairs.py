"""Pairs of texts that follow each other or do not, with hidden tokens (BERT, ALBERT)."""

import dataclasses

import numpy as np

from lm.core.errors import UserError
from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.masked import HiddenTokens

NAMES = ("tokens", "bytes", "span")  # what is known of each token of a text
Text = dict[str, np.ndarray]  # these, each [tokens]


@dataclasses.dataclass(frozen=True)
class SentencePairs:
    """Rows `first A separator B separator` of one document each, where B follows A or, every second time, does not:
    see `MaskedPairs`.

    hidden: what is hidden of them
    first, separator: ids
    swapped: what does not follow is B before A (sentence order); else a text of another document (next sentence), the
        row's partner
    short: share of pairs that are cut to a random length
    heads: the names of the heads for hidden tokens and for the pair"""

    hidden: HiddenTokens
    first: int
    separator: int
    swapped: bool
    short: float
    heads: tuple[str, str]

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens with sentences, and of `swapped` False a partner -> tokens, segments, positions,
        types [S], and for each head its targets and weights, [S] (or fewer: `HiddenTokens`) and []. Targets of pairs
        are 0 where B follows A, and 1 where not."""
        length = len(row["tokens"]) - 1
        room = length - 3
        if room < 2:
            raise UserError(
                f"rows of {length} tokens have no room for two texts and three more: raise config.data.length"
            )
        size = int(rng.integers(2, room + 1)) if rng.random() < self.short else room
        wrong = bool(rng.random() < 0.5)
        a, b = self._split(self._text(row, rng, 2), size, rng)
        told = len(b["tokens"]) > 0
        if told and wrong and self.swapped:
            a, b = b, a
        elif told and not self.swapped:
            partner = {name.removeprefix("partner0/"): x for name, x in row.items() if name.startswith("partner0/")}
            other = _from_sentence(self._text(partner, rng, 1), max(1, size - len(a["tokens"])), rng)
            wrong &= len(other["tokens"]) > 0
            b = other if wrong else b
        a, b = _cut(a, b, room, rng)
        mlm, pair = self.heads
        made = self._joined(a, b, length, rng)
        of_tokens = {f"{mlm}/{name}": made.pop(name) for name in ("targets", "weights", "predicted") if name in made}
        label = {f"{pair}/targets": np.array(wrong and told, np.int32), f"{pair}/weights": np.array(told, np.float32)}
        return made | of_tokens | label

    def _joined(self, a: Text, b: Text, length: int, rng: np.random.Generator) -> Example:
        """The row of a pair, with hidden tokens."""
        special = {name: np.zeros(1, x.dtype) for name, x in a.items()}
        first, end = (special | {"tokens": np.array([x], np.int32)} for x in (self.first, self.separator))
        parts = [first, a, end, *([b, end] if len(b["tokens"]) else [])] if len(a["tokens"]) else []
        joined = {name: _filled([part[name] for part in parts], length + 1, x.dtype) for name, x in a.items()}
        sizes = [len(part["tokens"]) for part in parts]
        # The builder leaves out a row's first token: here that is padding.
        segments = _filled([np.ones(sum(sizes), np.int32)], length + 1, np.int32)
        types = _filled([np.zeros(sum(sizes[:3]), np.int32), np.ones(sum(sizes[3:]), np.int32)], length + 1, np.int32)
        made = self.hidden(joined | {"segments": segments}, rng)
        made.pop("bytes", None)
        return made | {"types": types[1:]}

    def _text(self, row: Row, rng: np.random.Generator, sentences: int) -> Text:
        """One document's part of a row, drawn by its length among those that have so many sentences, if any do; with
        `starts`, bool: where a sentence begins."""
        segments = row["segments"]
        real = (segments > 0) & ~np.isin(row["tokens"], self.hidden.kept)
        starts = (row["sentence"] > 0) & real
        starts[1:] |= real[1:] & (~real[:-1] | (segments[1:] != segments[:-1]))
        starts[:1] |= real[:1]
        lengths = np.bincount(segments, weights=real)
        enough = np.bincount(segments, weights=starts) >= sentences
        wanted = np.where(enough, lengths, 0.0)
        wanted = wanted if wanted.any() else lengths
        number = rng.choice(len(wanted), p=wanted / wanted.sum()) if wanted.any() else 0
        at = real & (segments == number)
        return {name: row[name][at] for name in NAMES if name in row} | {"starts": starts[at]}

    def _split(self, text: Text, size: int, rng: np.random.Generator) -> tuple[Text, Text]:
        """Two runs of sentences that follow each other, from any sentence on, of about `size` tokens together; the
        second is empty where there is one sentence only."""
        starts, n = np.flatnonzero(text.pop("starts")), len(text["tokens"])
        if len(starts) < 2:
            return _slice(text, 0, n), _slice(text, 0, 0)
        ends = np.append(starts[1:], n)
        # Sentences from `begin` on until they have enough tokens, but two at least. Where all that is left is less
        # than that, they begin earlier, so that no pair is shorter than it must be.
        late = int(np.searchsorted(starts, n - size, side="right")) - 1
        begin = int(rng.integers(0, min(max(late, 0), len(starts) - 2) + 1))
        behind = int(np.searchsorted(ends, starts[begin] + size))
        behind = min(max(behind + 1, begin + 2), len(starts))
        middle = int(rng.integers(begin + 1, behind))
        return _slice(text, starts[begin], starts[middle]), _slice(text, starts[middle], ends[behind - 1])


def _from_sentence(text: Text, size: int, rng: np.random.Generator) -> Text:
    """Sentences from any on, of about `size` tokens."""
    starts, n = np.flatnonzero(text.pop("starts")), len(text["tokens"])
    if not n:
        return text
    ends = np.append(starts[1:], n)
    begin = starts[int(rng.integers(len(starts)))]
    return _slice(text, begin, ends[min(int(np.searchsorted(ends, begin + size)), len(ends) - 1)])


def _cut(a: Text, b: Text, room: int, rng: np.random.Generator) -> tuple[Text, Text]:
    """At most `room` tokens in all: what is too much goes from the longer one, token by token, from its beginning or
    its end as it falls (BERT's published rule)."""
    long, short = len(a["tokens"]), len(b["tokens"])
    over = max(0, long + short - room)
    first = min(over, abs(long - short))
    rest = over - first
    of_b = (first if short > long else 0) + -(-rest // 2)
    return _trimmed(a, over - of_b, rng), _trimmed(b, of_b, rng)


def _trimmed(text: Text, over: int, rng: np.random.Generator) -> Text:
    front = int(rng.binomial(over, 0.5))
    return _slice(text, front, len(text["tokens"]) - (over - front))


def _slice(text: Text, first: int, end: int) -> Text:
    return {name: x[first:end] for name, x in text.items()}


def _filled(parts: list[np.ndarray], length: int, dtype: np.dtype | type) -> np.ndarray:
    """Behind one padding, these parts, and padding up to a length."""
    whole = np.concatenate([np.zeros(1, dtype), *parts])
    return np.pad(whole, (0, length - len(whole))).astype(dtype)
