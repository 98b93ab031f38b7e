"""Denoising examples: part of a text is taken out, for the model to write. Span corruption (T5, Raffel et al. 2020,
arXiv 1910.10683), prefix language modelling, and UL2's mixture of them (Tay et al. 2022, arXiv 2205.05131).

A denoiser splits a run of tokens into inputs and targets. `PairedDenoising` draws one for each row and lays the pair
out for an encoder-decoder, `PrefixDenoising` for a decoder with the `Prefix` mask.

As in T5, a row is corrupted as a whole: the documents packed into it are told apart by the end-of-text tokens
between them only, a span may run across such a boundary, and attention sees the whole row.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.builder import Example

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Pair = tuple[np.ndarray, np.ndarray]  # inputs and targets, int32


class MaxSizes(NamedTuple):
    """The most that rows of some length can take up: input tokens, target tokens, different sentinels."""

    inputs: int
    targets: int
    sentinels: int


@component
class SpanCorruption:
    """Replace spans of `mean` tokens on average, `density` of all tokens, by sentinels: "Thank you for
    inviting me to your party" becomes "Thank you <0> me to your <1>", with the targets "<0> for inviting <1>
    party <2>".

    The numbers of noise tokens and of spans follow from the length alone; among the masks that have these,
    begin with text and end in noise, each is equally likely. (The final sentinel is the paper's; T5's
    published data code leaves it out, since nothing follows the last span.)"""

    mean: float = 3.0
    density: float = 0.15

    def __post_init__(self) -> None:
        if self.mean < 1:
            raise UserError(f"mean span length {self.mean} is less than a token: give 1 or more")
        if not 0 < self.density < 1:
            raise UserError(f"noise density is {self.density}: give a fraction between 0 and 1, such as 0.15")

    def counts(self, length: int) -> tuple[int, int]:
        """(noise tokens, spans) of `length` >= 2 tokens: at least one of each, and some text before every
        span."""
        noise = min(max(round(length * self.density), 1), length - 1)
        return noise, min(max(round(noise / self.mean), 1), length - noise)

    def sizes(self, length: int) -> MaxSizes:
        noise, spans = self.counts(length)
        return MaxSizes(length - noise + spans, noise + spans + 1, spans + 1)

    def noise_mask(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """bool [length]: which tokens are taken out."""
        noise, spans = self.counts(length)
        kept, hidden = _partition(length - noise, spans, rng), _partition(noise, spans, rng)
        return np.repeat(np.tile([False, True], spans), np.stack([kept, hidden], axis=1).ravel())

    def __call__(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        """tokens [n >= 2], ids of at least `sizes(n).sentinels` sentinels in order -> inputs, targets."""
        noise = self.noise_mask(len(tokens), rng)
        starts = np.flatnonzero(noise & ~np.concatenate([[False], noise[:-1]]))
        own, last = sentinels[: len(starts)], sentinels[len(starts)]
        # With each sentinel before its span: inputs are sentinels and text, targets are sentinels and noise.
        marked, is_noise = np.insert(tokens, starts, own), np.insert(noise, starts, False)
        is_sentinel = np.insert(np.zeros(len(tokens), bool), starts, True)
        return marked[~is_noise], np.append(marked[is_noise | is_sentinel], last)


@component
class PrefixLM:
    """Continue a text: the inputs are its start and the targets its end, without sentinels.

    The share of the targets is uniform with mean `density`: at 0.5 the cut lies anywhere (T5's prefix LM), at
    0.25 in the second half (UL2's S-denoiser)."""

    density: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.density <= 0.5:
            raise UserError(f"mean share of the targets is {self.density}: give a fraction of at most 0.5")

    def sizes(self, length: int) -> MaxSizes:
        return MaxSizes(length - 1, max(round(2 * self.density * (length - 1)), 1), 0)

    def __call__(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        """tokens [n >= 2] -> inputs, targets."""
        cut = len(tokens) - int(rng.integers(1, self.sizes(len(tokens)).targets + 1))
        return tokens[:cut], tokens[cut:]


Denoiser = SpanCorruption | PrefixLM
MODES = ("R", "S", "X")  # regular, sequential, extreme: UL2's [NLU], [S2S] and [NLG]
Choice = tuple[float, str, Denoiser]  # rate, mode or "", denoiser

# Table 1 of the UL2 paper, all seven equally often.
SEVEN: tuple[Choice, ...] = (
    (1.0, "R", SpanCorruption(3.0, 0.15)),
    (1.0, "R", SpanCorruption(8.0, 0.15)),
    (1.0, "S", PrefixLM(0.25)),
    (1.0, "X", SpanCorruption(3.0, 0.5)),
    (1.0, "X", SpanCorruption(8.0, 0.5)),
    (1.0, "X", SpanCorruption(64.0, 0.15)),
    (1.0, "X", SpanCorruption(64.0, 0.5)),
)
SPANS: tuple[Choice, ...] = ((1.0, "", SpanCorruption()),)  # T5: one denoiser, no mode


@component
class SpecialIds:
    """What a mixture must know of a vocabulary.

    The i-th of `sentinels` sentinels has id first + i * step; `modes` are the ids of "R", "S" and "X" (or
    none); `eos` ends inputs and targets; `start` is the decoder's first input (T5: padding)."""

    first: int
    sentinels: int
    step: int = 1
    modes: tuple[int, ...] = ()
    eos: int = 1
    start: int = 0

    @classmethod
    def of(cls, tokenizer: "Tokenizer", modes: bool) -> Self:
        """Those of a tokenizer, whose last three sentinels are the modes' if there are any.

        Raises `UserError` where it has too few, or some with gaps between them."""
        ids = [tokenizer.sentinel(i) for i in range(tokenizer.sentinels)]
        taken = len(MODES) if modes else 0
        if len(ids) < taken:
            raise UserError(f"modes take {taken} sentinels, the tokenizer has {len(ids)}: use one with more")
        free = len(ids) - taken
        first, step = (ids[0], ids[1] - ids[0]) if len(ids) > 1 else (0, 1)
        if ids != [first + step * i for i in range(len(ids))]:
            raise UserError("the tokenizer's sentinels have gaps between their ids: use one that has them in a row")
        return cls(first, free, step, tuple(ids[free:]), tokenizer.eos_id, tokenizer.pad_id)


@dataclasses.dataclass(frozen=True)
class PairedDenoising:
    """Each row under a denoiser of its own, for an encoder-decoder: knobs as of `MixtureOfDenoisers`."""

    denoisers: tuple[Choice, ...]
    inputs: int
    targets: int
    ids: SpecialIds

    def check(self, length: int) -> None:
        """Raise `UserError` unless whatever is drawn for rows of `length` tokens fits whole."""
        most = largest(self.denoisers, length)
        if most.inputs > self.inputs or most.targets > self.targets:
            raise UserError(
                f"rows of {length} tokens can become {most.inputs} inputs and {most.targets} targets: "
                f"objective.inputs={self.inputs} and objective.targets={self.targets} must be at least that"
            )
        if most.sentinels > self.ids.sentinels:
            raise UserError(
                f"rows of {length} tokens can need {most.sentinels} sentinels and the tokenizer has "
                f"{self.ids.sentinels}, modes aside: use shorter rows, longer spans or another tokenizer"
            )

    def pair(self, row: Example, rng: np.random.Generator) -> Pair:
        """A packed row {tokens, segments [length + 1]} -> inputs, targets of varying length, both ending in
        eos; both empty if there are fewer than two tokens: none could be taken out and leave another."""
        return self._drawn(row, rng)[:2]

    def _drawn(self, row: Example, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs and targets, and how many bytes of text each target covers, where the row tells."""
        # Rows overlap by a token, for next-token prediction; without its first, a token is in one row only.
        tokens, segments = row["tokens"][1:], row["segments"][1:]
        self.check(len(tokens))
        ids, real = self.ids, segments > 0
        tokens, covered = tokens[real], row["bytes"][1:][real] if "bytes" in row else _int32()
        if len(tokens) < 2:
            return (_int32(),) * 3
        rates = np.array([rate for rate, _, _ in self.denoisers])
        _, mode, denoiser = self.denoisers[rng.choice(len(rates), p=rates / rates.sum())]
        # Indices instead of ids, with sentinels after the text: they select ids and bytes alike.
        indices = np.arange(len(tokens) + ids.sentinels)
        inputs, targets = denoiser(indices[: len(tokens)], indices[len(tokens) :], rng)
        known = _int32(tokens, ids.first + ids.step * np.arange(ids.sentinels))
        lead = [ids.modes[MODES.index(mode)]] if mode else []
        sizes = np.pad(covered, (0, len(known) - len(covered)))[targets]
        return _int32(lead, known[inputs], [ids.eos]), _int32(known[targets], [ids.eos]), _int32(sizes, [0])

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

    def __call__(self, row: Example, rng: np.random.Generator) -> Example:
        """A packed row -> tokens, targets, weights, segments, positions, prefix, each [inputs + targets]; bytes too,
        if the row tells them."""
        inputs, targets, sizes = self._drawn(row, rng)
        stream, length = _int32(inputs, targets), self.inputs + self.targets
        index = np.arange(length)
        weights = (index >= len(inputs) - 1) & (index < len(stream) - 1)  # the last input predicts the first target
        return _rows(stream[:-1], length) | {
            "targets": _padded(stream[1:], length),
            "weights": weights.astype(np.float32),
            "prefix": index < len(inputs),
            **({"bytes": _padded(_int32(inputs[1:] * 0, sizes), length)} if "bytes" in row else {}),
        }


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
    )


def _int32(*parts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.int32) for part in parts] or [np.zeros(0, np.int32)])


def _padded(tokens: np.ndarray, length: int) -> np.ndarray:
    return np.pad(tokens, (0, length - len(tokens)))


def _rows(tokens: np.ndarray, length: int) -> Example:
    index = np.arange(length, dtype=np.int32)
    segments = (index < len(tokens)).astype(np.int32)
    return {"tokens": _padded(tokens, length), "segments": segments, "positions": index}


def _partition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`parts` positive integers that add up to `total`, each such list as likely as any other."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False, shuffle=False)) + 1
    return np.diff(cuts, prepend=0, append=total)
