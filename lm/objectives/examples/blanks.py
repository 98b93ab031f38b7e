"""Blank infilling (GLM, Du et al. 2022, arXiv 2103.10360, section 2): spans of a text become blanks, and are written
behind it one after the other, in random order, each from the text with its blanks and the spans before it.

    text      the quick brown fox jumps         blanks at "quick brown" and "jumps"; the second is written first
    tokens    the [MASK] fox [MASK] [sop] jumps [sop] quick brown
    targets                         jumps [eop] quick brown [eop]
    text_position  0 1 2 3          3     3     1     1     1
    span           0 0 0 0          1     2     1     2     3
    prefix         1 1 1 1          0     0     0     0     0

Each document of a packed row is a text of its own, a segment. Its end-of-text is left out: [eop] says where a span
ends, and nothing follows the text."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.objectives.examples.builder import Example, Row
from lm.text.special import LONG_MASKS, MASKS, SENTENCE_MASKS, SPAN_ENDS, SPAN_STARTS, first_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Spans = np.ndarray  # int [k, 2]: first token and the one after the last of each, in order, at least a token apart
FEWEST = 8  # blanks that any row has room for: one for each of so many short documents
NONE: Spans = np.zeros((0, 2), int)


class Blanks(Protocol):
    """How a text's spans are chosen."""

    mark: ClassVar[str]  # which of the special tokens stands for one: mask, long_mask or sentence_mask

    def most(self, length: int) -> int:
        """More spans than a row of so many tokens will have; more are not taken."""

    def __call__(self, begins: np.ndarray, rng: np.random.Generator) -> Spans:
        """begins: int [n], 1 where a sentence begins, of a text of n >= 1 tokens -> its spans."""


@component
class ShortSpans:
    """Spans of Poisson lengths of mean `mean`, at least a token each, that make up `share` of the text (at least one
    token; the last span is cut to fit). Between two of them stands a token at least; among the places that leave it so
    each is equally likely."""

    mark: ClassVar[str] = "mask"

    share: Share = 0.15
    mean: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"share={self.share} of a text in short spans: give a fraction between 0 and 1")
        if self.mean < 1:
            raise UserError(f"mean={self.mean} tokens of a span are less than one: give 1 or more")

    def most(self, length: int) -> int:
        return 2 * -(-round(self.share * length) // max(1, int(self.mean)))

    def __call__(self, begins: np.ndarray, rng: np.random.Generator) -> Spans:
        n = len(begins)
        if n < 2:
            return NONE
        left = max(1, round(self.share * n))
        kept, lengths = n - left, list[int]()
        while left:
            length = min(max(1, rng.poisson(self.mean)), left) if len(lengths) < kept else left
            lengths.append(length)
            left -= length
        # Each span stands in a gap of its own between the tokens that are kept.
        gaps = np.sort(rng.choice(kept + 1, len(lengths), replace=False))
        starts = gaps + np.cumsum([0, *lengths[:-1]])
        return np.stack([starts, starts + lengths], axis=1)


@component
class LongSpan:
    """One span: of a length drawn evenly between the shares `least` and `most` of the text, at its end with
    probability `ending`, else anywhere. (GLM: half of a text at least; GLM-130B, arXiv 2210.02414, section 2.2: any
    part, always at the end.)"""

    mark: ClassVar[str] = "long_mask"

    least: Share = 0.5
    longest: Share = 1.0
    ending: Share = 0.5

    def __post_init__(self) -> None:
        if self.least > self.longest:
            raise UserError(f"least={self.least} is more than longest={self.longest}: give a smaller share")

    def most(self, length: int) -> int:
        return 1

    def __call__(self, begins: np.ndarray, rng: np.random.Generator) -> Spans:
        n = len(begins)
        least, most = (max(1, round(share * n)) for share in (self.least, self.longest))
        length = int(rng.integers(least, most + 1))
        start = n - length if rng.random() < self.ending else int(rng.integers(0, n - length + 1))
        return np.array([[start, start + length]])


@component
class Sentences:
    """Whole sentences, drawn until they make up `share` of the text, as far as it has several: one is always left.
    Where sentences begin is the channel `sentence` of the token cache."""

    mark: ClassVar[str] = "sentence_mask"

    share: Share = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"share={self.share} of a text in sentences: give a fraction between 0 and 1")

    def most(self, length: int) -> int:
        return FEWEST

    def __call__(self, begins: np.ndarray, rng: np.random.Generator) -> Spans:
        n = len(begins)
        edges = np.unique([0, *np.flatnonzero(begins), n])
        chosen, missing = [], self.share * n
        for i in rng.permutation(len(edges) - 1)[: len(edges) - 2]:
            if missing <= 0:
                break
            chosen.append(i)
            missing -= edges[i + 1] - edges[i]
        spans: list[list[int]] = []
        for i in sorted(chosen):
            if spans and spans[-1][1] == edges[i]:  # the sentence after the last one
                spans[-1][1] = edges[i + 1]
            else:
                spans.append([edges[i], edges[i + 1]])
        return np.array(spans, int).reshape(-1, 2)


BlankChoice = tuple[float, ShortSpans | LongSpan | Sentences]  # relative rate, how spans are chosen
SHORT: tuple[BlankChoice, ...] = ((1.0, ShortSpans()),)
WITH_DOCUMENTS: tuple[BlankChoice, ...] = ((0.5, ShortSpans()), (0.5, LongSpan()))  # section 2.1's second objective
WITH_SENTENCES: tuple[BlankChoice, ...] = ((0.5, ShortSpans()), (0.5, Sentences()))
THIRTY_SEVENTY: tuple[BlankChoice, ...] = ((0.3, ShortSpans()), (0.7, LongSpan(0.0, 1.0, 1.0)))  # GLM-130B's


@component
class BlankIds:
    """The special tokens of blanks, and those that stand around a text."""

    mask: int
    long_mask: int
    sentence_mask: int
    start: int
    end: int
    eos: int = 1
    bos: int | None = None

    @classmethod
    def of(cls, tokenizer: "Tokenizer", marks: tuple[str, ...] = ("mask",)) -> Self:
        """Those of a tokenizer, which must have the ones named in `marks`, and the start and end of a span; others
        are -1. Raises `UserError`."""
        found = {name: first_of(tokenizer, names) for name, names in NAMES.items()}
        if missing := [NAMES[name][0] for name in (*marks, "start", "end") if found[name] is None]:
            raise UserError(
                f"the tokenizer has no {', '.join(missing)}, which blanks need: train one with "
                f"config.data.reserved={','.join(names[0] for names in NAMES.values())}"
            )
        return cls(**{k: -1 if i is None else i for k, i in found.items()}, eos=tokenizer.eos_id, bos=tokenizer.bos_id)

    @property
    def blanks(self) -> tuple[int, ...]:
        """Every token that stands for a span."""
        return tuple(i for i in (self.mask, self.long_mask, self.sentence_mask) if i >= 0)


NAMES = {
    "mask": MASKS[:2],
    "long_mask": LONG_MASKS,
    "sentence_mask": SENTENCE_MASKS,
    "start": SPAN_STARTS,
    "end": SPAN_ENDS,
}


@dataclasses.dataclass(frozen=True)
class BlankedRows:
    """Each row under a choice of spans of its own: knobs as of `BlankInfilling`."""

    choices: tuple[BlankChoice, ...]
    ids: BlankIds
    most: int | None = None
    running: bool = False

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]}, with `sentence` and `target` or without -> tokens, targets, weights,
        segments, positions, prefix, text_position, span, each [S + 1 + two for each blank that there is room for]; of
        one with bytes also those of each target."""
        rates = np.array([rate for rate, _ in self.choices])
        _, choose = self.choices[rng.choice(len(rates), p=rates / rates.sum())]
        # All of the row: its first token may begin a text, though in running text the row before ends with it too.
        length = len(row["tokens"])
        room = self.room(length)
        made: dict[str, list[np.ndarray]] = {name: [] for name in _KEYS}
        for text, number in self._texts(row):
            spans, mark = self._spans(text, choose, rng)
            spans = spans[np.sort(rng.permutation(len(spans))[:room])]
            # No longer than the positions within a span of a model for S tokens.
            spans[:, 0] = np.maximum(spans[:, 0], spans[:, 1] - (length - 2))
            room -= len(spans)
            for name, values in self.laid_out(text["tokens"], text.get("bytes"), spans, mark, rng).items():
                made[name].append(values)
            made["segments"].append(np.full(len(made["tokens"][-1]), number))
        whole = {name: np.concatenate([[], *parts]) for name, parts in made.items()}
        padding = length + 2 * self.room(length) - len(whole["tokens"])
        example: Example = {name: np.pad(x, (0, padding)).astype(_KEYS[name]) for name, x in whole.items()}
        return example if "bytes" in row else {k: v for k, v in example.items() if k != "bytes"}

    def room(self, length: int) -> int:
        """How many blanks a row of so many tokens has room for."""
        return self.most or max(FEWEST, *(choose.most(length) for _, choose in self.choices))

    def _texts(self, row: Row) -> Iterator[tuple[Row, int]]:
        """Each document of a row, without its end-of-text, and its segment."""
        segments, tokens = row["segments"], {name: values for name, values in row.items() if np.ndim(values)}
        edges = np.flatnonzero(np.diff(segments, prepend=-1, append=-1))
        for start, stop in itertools.pairwise(edges):
            if segments[start] > 0:
                stop -= row["tokens"][stop - 1] == self.ids.eos
                if stop > start:
                    yield {name: values[start:stop] for name, values in tokens.items()}, int(segments[start])

    def _spans(self, text: Row, choose: Blanks, rng: np.random.Generator) -> tuple[Spans, int]:
        """The spans of a text, and what stands for them. What a record marks as `target` is the only blank, a long
        one: an instruction is read, its answer written (GLM-130B's multi-task instruction pre-training)."""
        first = int(text["tokens"][0] == self.ids.bos) if self.ids.bos is not None else 0
        if np.any(text.get("target", 0)):
            edges = np.flatnonzero(np.diff(text["target"] > 0, prepend=False, append=False))
            long_mask = self.ids.long_mask if self.ids.long_mask >= 0 else getattr(self.ids, choose.mark)
            return edges.reshape(-1, 2), long_mask
        begins = text.get("sentence", np.zeros(len(text["tokens"]), np.int32))[first:]
        spans = choose(begins, rng) if len(begins) else NONE
        return spans + first, getattr(self.ids, choose.mark)

    def laid_out(
        self, tokens: np.ndarray, covered: np.ndarray | None, spans: Spans, mark: int, rng: np.random.Generator
    ) -> Example:
        """One text, tokens [n], with its k spans blanked -> all but `segments`, each [n + 2 k]."""
        starts, hidden = spans[:, 0], np.zeros(len(tokens), bool)
        for start, stop in spans:
            hidden[start:stop] = True
        shown = np.insert(tokens, starts, mark)[~np.insert(hidden, starts, False)]
        at = np.flatnonzero(np.insert(np.zeros(len(tokens), bool), starts, True)[~np.insert(hidden, starts, False)])
        read = len(shown)
        parts: list[list[np.ndarray]] = [
            [shown, np.zeros(read), np.arange(read), np.zeros(read), np.zeros(read)]
        ]  # tokens, targets, positions in the text, in the span, bytes
        for i in rng.permutation(len(spans)):
            piece = slice(*spans[i])
            inside = np.arange(1, piece.stop - piece.start + 2)
            sizes = np.zeros(len(inside)) if covered is None else np.append(covered[piece], 0)
            parts.append(
                [
                    np.append(self.ids.start, tokens[piece]),
                    np.append(tokens[piece], self.ids.end),
                    np.full(len(inside), at[i]),
                    inside,
                    sizes,
                ]
            )
        made, targets, place, span, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
        positions = np.arange(len(made))
        return {
            "tokens": made,
            "targets": targets,
            "weights": positions >= read,
            "positions": positions,
            "prefix": positions < read,
            "text_position": positions if self.running and mark == self.ids.long_mask else place,
            "span": span,
            "bytes": sizes,
        }


_KEYS: dict[str, type] = {
    **dict.fromkeys(("tokens", "targets", "segments", "positions", "text_position", "span", "bytes"), np.int32),
    "weights": np.float32,
    "prefix": np.bool_,
}
