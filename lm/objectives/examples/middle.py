"""Examples that teach a left-to-right model to fill in the middle (Bavarian et al. 2022, arXiv 2207.14255): documents
are cut in three, and the middle is moved to the end."""

import dataclasses
from typing import TYPE_CHECKING, Self

import numpy as np

from lm.core.component import component
from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import NextTokens
from lm.text.special import middle_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MiddleIds:
    """The tokens before the parts of a document."""

    prefix: int
    suffix: int
    middle: int

    @classmethod
    def of(cls, tokenizer: "Tokenizer") -> Self | None:
        """Those that a tokenizer has under a published name."""
        return None if (own := middle_of(tokenizer)) is None else cls(*own)


@dataclasses.dataclass(frozen=True)
class MovedMiddles:
    """Next tokens of rows in which some documents have their middle at the end: see `FillInTheMiddle`.

    bos, eos: stay at the ends of a document, wherever its parts go"""

    rate: float
    suffix_first: float
    joined: bool
    ids: MiddleIds
    bos: int | None
    eos: int

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]} -> as `NextTokens`. A document with its middle moved is longer by
        three tokens, for which the padding makes room, and then the end of the row is left out."""
        length = len(row["tokens"])
        segments = row["segments"][row["segments"] > 0]
        documents = np.split(np.arange(len(segments)), np.flatnonzero(np.diff(segments)) + 1) if len(segments) else []
        laid = [self._laid(row["tokens"], d, rng) if rng.random() < self.rate else d for d in documents]
        # indices of the row's tokens; ~id for those put in
        at = np.concatenate([np.zeros(0, int), *laid])[:length]
        number = np.repeat([segments[d[0]] for d in documents], [len(d) for d in laid]).astype(np.int32)
        kept = np.maximum(at, 0)
        values = {"tokens": np.where(at < 0, ~at, row["tokens"][kept]), "segments": number[:length]}
        if "bytes" in row:
            values["bytes"] = np.where(at < 0, 0, row["bytes"][kept])
        padded = {name: np.pad(x, (0, length - len(x))).astype(np.int32) for name, x in values.items()}
        return NextTokens()(padded, rng)

    def _laid(self, tokens: np.ndarray, document: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A document's indices in their new order, with ~id of the tokens put in. Both cuts are equally likely to lie
        anywhere, so that any part may be empty."""
        begins = int(tokens[document[0]] == self.bos)
        ends = len(document) - int(tokens[document[-1]] == self.eos)
        text = document[begins:ends]
        prefix, middle, suffix = np.split(text, np.sort(rng.integers(0, len(text) + 1, 2)))
        pre, suf, mid = (np.array([~i]) for i in (self.ids.prefix, self.ids.suffix, self.ids.middle))
        parts: tuple[np.ndarray, ...]
        if rng.random() >= self.suffix_first:
            parts = (pre, prefix, suf, suffix, mid, middle)
        elif self.joined:
            parts = (pre, suf, suffix, mid, prefix, middle)
        else:
            parts = (suf, suffix, pre, prefix, mid, middle)
        return np.concatenate([document[:begins], *parts, document[ends:]]).astype(int)
