"""Texts of whole sentences, of which rows are made, and rows of several texts with hidden tokens."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lm.core.errors import UserError
from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.masked import HiddenTokens

NAMES = ("tokens", "bytes", "span", "part")  # what is known of each token of a text
Text = dict[str, np.ndarray]  # these, each [tokens]


@dataclasses.dataclass(frozen=True)
class JoinedTexts:
    """Rows `first A separator B separator ..`, in which some tokens are hidden, and which have a label.

    hidden: what is hidden of them
    first, separator: ids
    heads: the names of the heads for hidden tokens and for the label"""

    hidden: HiddenTokens
    first: int
    separator: int
    heads: tuple[str, str]

    def room(self, row: Row, texts: int) -> int:
        """How many tokens so many texts may have in all, at least one each. Raises `UserError`."""
        length = len(row["tokens"]) - 1
        room = length - 1 - texts
        if room < texts:
            raise UserError(
                f"rows of {length} tokens have no room for {texts} texts and the {texts + 1} tokens around them: raise "
                "config.data.length"
            )
        return room

    def __call__(
        self,
        texts: Sequence[Text],
        types: Sequence[int],
        label: int,
        told: bool,
        length: int,
        rng: np.random.Generator,
    ) -> Example:
        """The row of these texts, each with its token type -> tokens, segments, positions, types [S], and for each head
        its targets and weights: of tokens, [S] (or fewer: `HiddenTokens`), and of the label, []. Without a label that
        can be `told` its weight is 0. Texts that are empty are left out; a row without any is padding."""
        blank = {name: np.zeros(1, x.dtype) for name, x in texts[0].items()}
        first, end = (blank | {"tokens": np.array([x], np.int32)} for x in (self.first, self.separator))
        there = [(text, kind) for text, kind in zip(texts, types, strict=True) if len(text["tokens"])]
        parts = [first, *(part for text, _ in there for part in (text, end))] if there else []
        joined = {name: _filled([part[name] for part in parts], length + 1, x.dtype) for name, x in blank.items()}
        sizes = [len(text["tokens"]) + 1 for text, _ in there]
        of_tokens = [
            np.full(n + (i == 0), kind, np.int32) for i, (n, (_, kind)) in enumerate(zip(sizes, there, strict=True))
        ]
        # The builder leaves out a row's last token: here that is padding.
        segments = _filled([np.ones_like(kinds) for kinds in of_tokens], length + 1, np.int32)
        made = self.hidden(joined | {"segments": segments}, rng)
        made.pop("bytes", None)
        tokens, labels = self.heads
        predicted = {f"{tokens}/{name}": made.pop(name) for name in ("targets", "weights", "predicted") if name in made}
        asked = {f"{labels}/targets": np.array(label, np.int32), f"{labels}/weights": np.array(told, np.float32)}
        return made | {"types": _filled(of_tokens, length + 1, np.int32)[:-1]} | predicted | asked


def document_in(row: Row, kept: Sequence[int], rng: np.random.Generator, sentences: int) -> Text:
    """One document's part of a row, without the tokens `kept`, drawn by its length among those that have so many
    sentences, if any do; with `starts`, bool: where a sentence begins."""
    segments = row["segments"]
    real = (segments > 0) & ~np.isin(row["tokens"], kept)
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


def partner_in(row: Row) -> Row:
    """The row beside a row."""
    return {name.removeprefix("partner0/"): x for name, x in row.items() if name.startswith("partner0/")}


def some_sentences(text: Text, size: int, least: int, rng: np.random.Generator) -> tuple[int, int, np.ndarray]:
    """Sentences in a row, from any on, of about `size` tokens but at least so many of them, which the text has: the
    first, the one behind the last, and where each sentence of the text begins, and the last one ends.

    Where all that is left is less than that, they begin earlier, so that none are fewer than they must be."""
    starts, n = np.flatnonzero(text["starts"]), len(text["tokens"])
    bounds = np.append(starts, n)
    late = int(np.searchsorted(starts, n - size, side="right")) - 1
    begin = int(rng.integers(0, min(max(late, 0), len(starts) - least) + 1))
    behind = int(np.searchsorted(bounds[1:], starts[begin] + size))
    return begin, min(max(behind + 1, begin + least), len(starts)), bounds


def from_sentence(text: Text, size: int, rng: np.random.Generator) -> Text:
    """Sentences from any on, of about `size` tokens."""
    starts, n = np.flatnonzero(text["starts"]), len(text["tokens"])
    if not n:
        return cut(text, 0, 0)
    ends = np.append(starts[1:], n)
    begin = starts[int(rng.integers(len(starts)))]
    return cut(text, begin, ends[min(int(np.searchsorted(ends, begin + size)), len(ends) - 1)])


def fitted(texts: Sequence[Text], room: int, rng: np.random.Generator) -> list[Text]:
    """At most `room` tokens in all: what is too much goes from the longest one, token by token, from its beginning or
    its end as it falls (BERT's published rule). Of equally long ones the last is cut first."""
    sizes = np.array([len(text["tokens"]) for text in texts])
    if sizes.sum() <= room:
        return [cut(text, 0, len(text["tokens"])) for text in texts]
    level = next(most for most in range(room, -1, -1) if np.minimum(sizes, most).sum() <= room)
    longer = np.flatnonzero(sizes > level)
    left = np.minimum(sizes, level)
    left[longer[: room - left.sum()]] += 1
    return [_trimmed(text, int(over), rng) for text, over in zip(texts, sizes - left, strict=True)]


def _trimmed(text: Text, over: int, rng: np.random.Generator) -> Text:
    front = int(rng.binomial(over, 0.5))
    return cut(text, front, len(text["tokens"]) - (over - front))


def cut(text: Text, first: int, end: int) -> Text:
    """Its tokens from `first` to `end`."""
    return {name: x[first:end] for name, x in text.items() if name != "starts"}


def _filled(parts: list[np.ndarray], length: int, dtype: np.dtype | type) -> np.ndarray:
    """These parts, and padding up to a length."""
    whole = np.concatenate([np.zeros(0, dtype), *parts])
    return np.pad(whole, (0, length - len(whole))).astype(dtype)
