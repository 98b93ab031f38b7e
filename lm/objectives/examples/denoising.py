"""Denoising examples: part of a text is taken out, for the model to write. A denoiser splits a run of tokens into
inputs and targets (`lm.objectives.examples.denoiser`). `PairedDenoising` draws one for each row and lays the pair out
for an encoder-decoder, `PrefixDenoising` for a decoder with the `Prefix` mask.

As in T5, a row is corrupted as a whole: the documents packed into it are told apart by the end-of-text tokens
between them only, a span may run across such a boundary, and attention sees the whole row.
"""

import bisect
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.data.mixture import Mixture
from lm.data.packing import read_of
from lm.objectives.examples.builder import Example
from lm.objectives.examples.denoiser import MaxSizes, Original, Pair
from lm.objectives.examples.published import Choice
from lm.text.special import MODE_NAMES, first_of, mask_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

MODES = tuple(MODE_NAMES)  # what a model is told of its task, by a token before the inputs
FIRST = 3  # of them, to which the last sentinels stand where a vocabulary has no tokens for modes


@component
class SpecialIds:
    """What a mixture must know of a vocabulary.

    The i-th of `sentinels` sentinels has id first + i * step; `modes` are the ids of `MODES`, of the first of them or
    none (-1: not in the vocabulary); `eos` ends inputs and targets; `start` is the decoder's first input (T5: padding);
    `mask` hides tokens, None: the first sentinel does; `stops` end a sentence; random tokens are below `vocab`."""

    first: int
    sentinels: int
    step: int = 1
    modes: tuple[int, ...] = ()
    eos: int = 1
    start: int = 0
    mask: int | None = None
    stops: tuple[int, ...] = ()
    vocab: int = 0

    def of_mode(self, mode: str) -> int:
        """The id of one of `MODES`; -1: there is none."""
        at = MODES.index(mode)
        return self.modes[at] if at < len(self.modes) else -1

    @classmethod
    def of(cls, tokenizer: "Tokenizer", modes: Collection[str] = ()) -> Self:
        """Those of a tokenizer, whose tokens for `modes` are used if it has them all, or else its last sentinels.

        Raises `UserError` where it has too few, or some with gaps between them."""
        ids = [tokenizer.sentinel(i) for i in range(tokenizer.sentinels)]
        own = {mode: first_of(tokenizer, names) for mode, names in MODE_NAMES.items()} if modes else {}
        named, taken = tuple(-1 if i is None else i for i in own.values()), 0
        if any(own[mode] is None for mode in modes):
            taken = FIRST if set(modes) <= set(MODES[:FIRST]) else len(MODES)
        if len(ids) < taken:
            raise UserError(
                f"modes take {taken} sentinels, the tokenizer has {len(ids)}: use one with more, or add tokens for the "
                f"modes, config.data.reserved={_listed(modes)}"
            )
        free = len(ids) - taken
        first, step = (ids[0], ids[1] - ids[0]) if len(ids) > 1 else (0, 1)
        if ids != [first + step * i for i in range(len(ids))]:
            raise UserError("the tokenizer's sentinels have gaps between their ids: use one that has them in a row")
        if taken:  # the sentinels of the other modes are before those of the first
            named = (*ids[-FIRST:], *ids[free:-FIRST])
        ends = [(stop, int(tokenizer.encode(f"a{stop}")[-1])) for stop in ".!?"]
        stops = tuple(i for stop, i in ends if tokenizer.decode([i]).strip() == stop)
        return cls(
            first,
            free,
            step,
            named,
            tokenizer.eos_id,
            tokenizer.pad_id,
            mask_of(tokenizer),
            stops,
            tokenizer.vocab_size,
        )


@dataclasses.dataclass(frozen=True)
class PairedDenoising:
    """Each row under a denoiser of its own, for an encoder-decoder: knobs as of `MixtureOfDenoisers`."""

    denoisers: tuple[Choice, ...]
    inputs: int
    targets: int
    ids: SpecialIds
    exact: bool = False

    def check(self, length: int) -> None:
        """Raise `UserError` unless whatever is drawn for rows of `length` tokens fits whole."""
        most = largest(self.denoisers, length)
        if short := self._short(most):
            shorter = bisect.bisect(range(2, length), 0, key=lambda n: len(self._short(largest(self.denoisers, n)))) + 1
            instead = f", or data.length={shorter}, the longest rows that fit" if shorter > 1 else ""
            raise UserError(f"rows of {length} tokens can become {short}{instead}")
        if missing := [mode for _, mode, _ in self.denoisers if mode and self.ids.of_mode(mode) < 0]:
            raise UserError(f"objective.ids has no token for the mode {missing[0]!r}: add it to `modes`")
        if most.sentinels > self.ids.sentinels:
            raise UserError(
                f"rows of {length} tokens can need {most.sentinels} sentinels and the tokenizer has "
                f"{self.ids.sentinels}, modes aside: use shorter rows, longer spans or another tokenizer"
            )

    def _short(self, most: MaxSizes) -> str:
        """Which of the arrays are too short for that, as an error says it."""
        if most.inputs <= self.inputs and most.targets <= self.targets:
            return ""
        return (
            f"{most.inputs} inputs and {most.targets} targets: objective.inputs={self.inputs} and "
            f"objective.targets={self.targets} must be at least that"
        )

    def pair(self, row: Example, rng: np.random.Generator) -> Pair:
        """A packed row {tokens, segments [length + 1]} -> inputs, targets of varying length, both ending in
        eos; both empty if there are fewer than two tokens: none could be taken out and leave another."""
        return self._drawn(row, rng)[:2]

    def _drawn(self, row: Example, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs and targets, and how many bytes of text each target covers, where the row tells."""
        row = row | read_of(row, "tokens", "segments", "bytes", "sentence")
        self.check(len(row["tokens"]))
        ids, real = self.ids, row["segments"] > 0
        tokens, covered = row["tokens"][real], row["bytes"][real] if "bytes" in row else _int32()
        if len(tokens) < 2:
            return (_int32(),) * 3
        _, mode, denoiser = self.denoisers[self._choice(row, rng)]
        text = self._text(tokens, row["sentence"][real] > 0 if "sentence" in row else None)
        inputs, targets = denoiser(text, rng)
        lead = [ids.of_mode(mode)] if mode else []
        return (
            _int32(lead, _ids(inputs, tokens), [ids.eos]),
            _int32(_ids(targets, tokens), [ids.eos]),
            _int32(np.where(targets < 0, 0, covered[np.maximum(targets, 0)]) if len(covered) else (), [0]),
        )

    def _choice(self, row: Example, rng: np.random.Generator) -> int:
        """Which denoiser a row is under."""
        if self.exact:
            return self._turns.locate(int(row.get("index", 0)))[0]  # 0: where shapes alone are asked for
        rates = np.array([rate for rate, _, _ in self.denoisers])
        return int(rng.choice(len(rates), p=rates / rates.sum()))

    @cached_property
    def _turns(self) -> Mixture:
        return Mixture(tuple(rate for rate, _, _ in self.denoisers))

    def _text(self, tokens: np.ndarray, starts: np.ndarray | None) -> Original:
        """A row's tokens as their indices: `Original`."""
        ids = self.ids
        if starts is None and ids.stops:
            starts = np.concatenate([[True], np.isin(tokens[:-1], (*ids.stops, ids.eos))])
        mask = ids.first if ids.mask is None and ids.sentinels else ids.mask
        return Original(
            np.arange(len(tokens)),
            ~(ids.first + ids.step * np.arange(ids.sentinels)),
            None if mask is None else ~mask,
            starts,
            ids.vocab,
        )

    def __call__(self, row: Example, rng: np.random.Generator) -> Example:
        """A packed row -> encoder/tokens, encoder/segments, encoder/positions [inputs] and tokens (the
        targets moved right by `start`), targets, weights, segments, positions [targets]; bytes too, if the row
        tells them. Segments are 1, and 0 on padding."""
        inputs, targets, sizes = self._drawn(row, rng)
        decoder = _int32([self.ids.start], targets)[: len(targets)]
        encoder = _rows(inputs, self.inputs)
        return {f"encoder/{name}": value for name, value in encoder.items()} | {
            **_rows(decoder, self.targets),
            "targets": _padded(targets, self.targets),
            "weights": (np.arange(self.targets) < len(targets)).astype(np.float32),
            **({"bytes": _padded(sizes, self.targets)} if "bytes" in row else {}),
        }


@dataclasses.dataclass(frozen=True)
class PrefixDenoising(PairedDenoising):
    """Inputs and targets in one stream: the inputs are a prefix that all of it sees, the loss is on the targets."""

    stream: int = 0  # its length; 0: inputs + targets, which is more than any row needs

    def _short(self, most: MaxSizes) -> str:
        if not self.stream or most.both - 1 <= self.stream:
            return super()._short(most)
        return f"{most.both - 1} in one stream: objective.stream={self.stream} must be at least that"

    def __call__(self, row: Example, rng: np.random.Generator) -> Example:
        """A packed row -> tokens, targets, weights, segments, positions, prefix, each [stream]; bytes too, if the row
        tells them."""
        inputs, targets, sizes = self._drawn(row, rng)
        stream, length = _int32(inputs, targets), self.stream or self.inputs + self.targets
        index = np.arange(length)
        weights = (index >= len(inputs) - 1) & (index < len(stream) - 1)  # the last input predicts the first target
        return _rows(stream[:-1], length) | {
            "targets": _padded(stream[1:], length),
            "weights": weights.astype(np.float32),
            "prefix": index < len(inputs),
            **({"bytes": _padded(_int32(inputs[1:] * 0, sizes), length)} if "bytes" in row else {}),
        }


def filling(denoisers: Sequence[Choice], size: int, what: str = "inputs") -> int:
    """The length of the longest rows of which no denoiser makes more than `size` tokens: `what`, a field of `MaxSizes`,
    mode tokens and eos included.

    Rows of span corruption fill inputs and targets exactly: without the final sentinel, 512 inputs come of 568 tokens,
    with 114 targets. (T5's `random_spans_helper`; at a density of 0.5 that takes a token less where the targets would
    be longer than the inputs.)

    Raises `UserError` if not even two tokens fit."""
    longest = bisect.bisect(range(2, 64 * size), size, key=lambda n: getattr(largest(denoisers, n), what)) + 1
    if longest < 2:
        least = getattr(largest(denoisers, 2), what)
        raise UserError(f"{size} tokens are too few for the {what} of any row: give {least} or more")
    return longest


def largest(denoisers: Iterable[Choice], length: int) -> MaxSizes:
    """The most that rows of up to `length` tokens can take up under any of these, mode tokens and eos
    included.

    (No denoiser makes more of a shorter row: one token less is one input or one noise token less.)"""
    if length < 2:
        raise UserError(f"rows of {length} tokens leave nothing to take out: give data.length=2 or more")
    all_sizes = [(1 if mode else 0, denoiser.sizes(length)) for _, mode, denoiser in denoisers]
    return MaxSizes(
        inputs=max(mode + most.inputs + 1 for mode, most in all_sizes),
        targets=max(most.targets + 1 for _, most in all_sizes),
        sentinels=max(most.sentinels for _, most in all_sizes),
        both=max(mode + most.both + 2 for mode, most in all_sizes),
    )


def _ids(chosen: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The ids that a denoiser means: by their index in the text, or ~id."""
    return np.where(chosen < 0, ~chosen, tokens[np.maximum(chosen, 0)])


def _listed(modes: Collection[str]) -> str:
    return f"[{','.join(MODE_NAMES[mode][0] for mode in sorted(modes))}]"


def _int32(*parts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.int32) for part in parts] or [np.zeros(0, np.int32)])


def _padded(tokens: np.ndarray, length: int) -> np.ndarray:
    return np.pad(tokens, (0, length - len(tokens)))


def _rows(tokens: np.ndarray, length: int) -> Example:
    index = np.arange(length, dtype=np.int32)
    segments = (index < len(tokens)).astype(np.int32)
    return {"tokens": _padded(tokens, length), "segments": segments, "positions": index}
