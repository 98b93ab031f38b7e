"""Pairs of texts that follow each other or do not, with hidden tokens (BERT, ALBERT, ERNIE)."""

import dataclasses
from typing import Literal

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.texts import (
    JoinedTexts,
    Text,
    cut,
    document_in,
    fitted,
    from_sentence,
    partner_in,
    some_sentences,
)

Relation = Literal["next", "order", "distance"]


@dataclasses.dataclass(frozen=True)
class SentencePairs:
    """Rows of two texts, A and B, where B follows A or not: see `MaskedPairs`.

    joined: how a row is made of them
    relation: what B is where it does not follow
    short: share of pairs that are cut to a random length"""

    joined: JoinedTexts
    relation: Relation
    short: float

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens with sentences and, but for the relation "order", a partner -> as `JoinedTexts`.
        Targets of pairs are 0 where B follows A, and else 1, or of "distance" 1 in the same document and 2 in another.
        """
        room = self.joined.room(row, 2)
        size = int(rng.integers(2, room + 1)) if rng.random() < self.short else room
        make = self._distant if self.relation == "distance" else self._wrong
        a, b, label = make(row, size, rng)
        told = len(b["tokens"]) > 0
        a, b = fitted([a, b], room, rng)
        return self.joined([a, b], (0, 1), label if told else 0, told, len(row["tokens"]) - 1, rng)

    def _wrong(self, row: Row, size: int, rng: np.random.Generator) -> tuple[Text, Text, int]:
        """A pair and its label, of which every second is wrong."""
        wrong = bool(rng.random() < 0.5)
        a, b = self._split(self._text(row, rng, 2), size, rng)
        if not len(b["tokens"]):
            return a, b, 0
        if self.relation == "order":
            return (b, a, 1) if wrong else (a, b, 0)
        other = self._elsewhere(row, max(1, size - len(a["tokens"])), rng)
        return (a, other, 1) if wrong and len(other["tokens"]) else (a, b, 0)

    def _distant(self, row: Row, size: int, rng: np.random.Generator) -> tuple[Text, Text, int]:
        """A pair and its label, of which every third is of either kind. All are about as long, lest that tell."""
        distance = int(rng.integers(3))
        text = self._text(row, rng, 3)
        if np.count_nonzero(text["starts"]) < 3:
            return *self._split(text, size, rng), 0
        begin, behind, bounds = some_sentences(text, size, 3, rng)
        end = int(rng.integers(begin + 1, behind - 1))  # of A; from `far` on B is apart from it
        far = int(rng.integers(end + 1, behind))
        a, b = cut(text, bounds[begin], bounds[end]), cut(text, bounds[far], bounds[behind])
        length = len(b["tokens"])
        if distance == 2 and len((other := self._elsewhere(row, length, rng))["tokens"]):
            return a, other, 2
        if distance == 1:
            return a, b, 1
        last = int(np.searchsorted(bounds, bounds[end] + length))
        return a, cut(text, bounds[end], bounds[last]), 0

    def _text(self, row: Row, rng: np.random.Generator, sentences: int) -> Text:
        return document_in(row, self.joined.hidden.kept, rng, sentences)

    def _elsewhere(self, row: Row, size: int, rng: np.random.Generator) -> Text:
        """Sentences of another document, of about `size` tokens."""
        return from_sentence(self._text(partner_in(row), rng, 1), size, rng)

    def _split(self, text: Text, size: int, rng: np.random.Generator) -> tuple[Text, Text]:
        """Two runs of sentences that follow each other, from any sentence on, of about `size` tokens together; the
        second is empty where there is one sentence only."""
        if np.count_nonzero(text["starts"]) < 2:
            return cut(text, 0, len(text["tokens"])), cut(text, 0, 0)
        begin, behind, bounds = some_sentences(text, size, 2, rng)
        middle = int(rng.integers(begin + 1, behind))
        return cut(text, bounds[begin], bounds[middle]), cut(text, bounds[middle], bounds[behind])
