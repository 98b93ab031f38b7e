"""Examples of labelled records: what the model reads is the record whole, and the targets are labels."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import NextTokens, positions_in


@dataclasses.dataclass(frozen=True)
class ReadRecord:
    """What a model reads of a row of S + 1 tokens, the last of which is padding.

    start: the first token of a decoder beside an encoder, which reads the text behind it; None: a model of one tower
    types: whether token types tell a record's two texts apart"""

    start: int | None = None
    types: bool = False

    def __call__(self, row: Row) -> Example:
        """tokens, segments, positions [S], with `types` those too, and of an encoder the same under its keys."""
        tokens, segments = row["tokens"][:-1], row["segments"][:-1]
        made = {"tokens": tokens, "segments": segments, "positions": positions_in(segments)}
        if self.types:
            made["types"] = np.where(segments > 0, row["part"][:-1], 0).astype(np.int32)
        if self.start is None:
            return made
        encoder = {f"encoder/{name}": value for name, value in made.items()}
        first = np.concatenate([[True], segments[1:] != segments[:-1]])
        shifted = np.where(first, self.start, np.concatenate([[self.start], tokens[:-1]]))
        return encoder | made | {"tokens": np.where(segments > 0, shifted, 0).astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class RowLabelled:
    """One record, and its label: `targets` and `weights` are numbers, of shape [].

    center, scale: of real labels, None of classes: the target is (label - center) / scale"""

    read: ReadRecord
    center: float = 0.0
    scale: float | None = None

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        label = row["label"][0]
        target = np.int32(label) if self.scale is None else np.float32((label - self.center) / self.scale)
        return self.read(row) | {
            "targets": np.array(target),
            "weights": np.array(row["segments"][0] > 0, np.float32),
            **_bytes(row),
        }


@dataclasses.dataclass(frozen=True)
class NextTokensLabelled:
    """One record whose tokens are predicted one by one, and its label.

    heads: the names of the heads for tokens and for the label
    only: tokens are predicted in records of this label alone; None: in all"""

    heads: tuple[str, str]
    only: int | None = None

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens with `label` -> tokens, segments, positions [S], and for the heads targets and
        weights, [S] and []."""
        made, label = NextTokens()(row, rng), RowLabelled(ReadRecord())(row, rng)
        written = self.only is None or label["targets"] == self.only
        made["weights"] = made["weights"] * np.float32(written)
        named = {self.heads[0]: made, self.heads[1]: label}
        targets = {f"{name}/{key}": of[key] for name, of in named.items() for key in ("targets", "weights")}
        return {key: made[key] for key in ("tokens", "segments", "positions")} | targets


@dataclasses.dataclass(frozen=True)
class TokenLabelled:
    """Labels of the tokens of which `target` says that they have one. Rows may hold several records."""

    read: ReadRecord

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        labelled = (row["target"][:-1] > 0) & (row["segments"][:-1] > 0)
        targets = np.where(labelled, row["label"][:-1], 0).astype(np.int32)
        return self.read(row) | {"targets": targets, "weights": labelled.astype(np.float32), **_bytes(row)}


@dataclasses.dataclass(frozen=True)
class SpanLabelled:
    """One record with an answer: targets [2] are the indices of its first token and of its last. Without one, as where
    it was cut off, weights are 0."""

    read: ReadRecord

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        marks = np.where(row["segments"][:-1] > 0, row["label"][:-1], 0).astype(np.int32)
        places = [np.flatnonzero(marks & bit) for bit in (1, 2)]
        found = all(map(len, places))
        targets = np.array([place[0] if found else 0 for place in places], np.int32)
        return self.read(row) | {"targets": targets, "weights": np.full(2, found, np.float32), **_bytes(row)}


def _bytes(row: Row) -> Example:
    """Bytes of text that are read, as no target covers any."""
    return {"bytes": np.array(row["bytes"][:-1].sum(), np.int32)} if "bytes" in row else {}
