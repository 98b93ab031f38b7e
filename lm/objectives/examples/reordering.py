"""Texts cut into segments that have changed places, with hidden tokens (ERNIE 2.0)."""

import dataclasses
import math
from itertools import accumulate

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.texts import JoinedTexts, cut, document_in, fitted, some_sentences


@dataclasses.dataclass(frozen=True)
class ReorderedSegments:
    """Rows of segments of one text in any order: see `SentenceReordering`.

    joined: how a row is made of them
    segments: into how many a text is cut at most"""

    joined: JoinedTexts
    segments: int

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens with sentences -> as `JoinedTexts`. The target is the class of the order, of
        which nothing is told where a document has one sentence only."""
        room = self.joined.room(row, self.segments)
        text = document_in(row, self.joined.hidden.kept, rng, 2)
        sentences = np.count_nonzero(text["starts"])
        if sentences < 2:
            (whole,) = fitted([text], room, rng)
            return self.joined([whole], (0,), 0, False, len(row["tokens"]) - 1, rng)
        begin, behind, bounds = some_sentences(text, room, 2, rng)
        count = int(rng.integers(1, min(self.segments, behind - begin) + 1))
        inner = begin + 1 + np.sort(rng.permutation(behind - begin - 1)[: count - 1])
        edges = bounds[[begin, *inner, behind]]
        order = rng.permutation(count)
        parts = fitted([cut(text, edges[i], edges[i + 1]) for i in range(count)], room, rng)
        shown = [parts[i] for i in order]
        return self.joined(shown, (0,) * count, order_class(order), True, len(row["tokens"]) - 1, rng)


def order_class(order: np.ndarray) -> int:
    """The number of an order of n things, where order[i] says which of them stands at i: among those of n by the
    alphabet, behind all of fewer things."""
    n = len(order)
    smaller = [int(np.count_nonzero(order[i + 1 :] < order[i])) for i in range(n)]
    return classes_up_to(n - 1) + sum(k * math.factorial(n - 1 - i) for i, k in enumerate(smaller))


def classes_up_to(segments: int) -> int:
    """How many orders of 1 to so many things there are."""
    return list(accumulate((math.factorial(n) for n in range(1, segments + 1)), initial=0))[-1]
