"""Denoisers that write the whole text anew, and the noises that spoil it (BART, Lewis et al. 2020, arXiv 1910.13461,
section 2.2). No noise makes a text longer.

Rates are exact where a paper gives a rate: of n tokens, as many are hidden as `share` says, rounded up."""

import math
from typing import Protocol, runtime_checkable

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.objectives.examples.denoiser import MaxSizes, Original, Pair


@runtime_checkable
class Noise(Protocol):
    """A component that spoils a text."""

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        """The text with other `tokens` [at most n], and with `starts` of these if they were known."""


@component
class Reconstruction:
    """Write a text from what `noises`, one after the other, leave of it."""

    noises: tuple[Noise, ...]

    def __post_init__(self) -> None:
        if not self.noises:
            raise UserError("a reconstruction needs at least one noise, such as TextInfilling")

    def sizes(self, length: int) -> MaxSizes:
        return MaxSizes(length, length, 0, 2 * length)

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        noised = text
        for noise in self.noises:
            noised = noise.spoiled(noised, rng)
        return noised.tokens, text.tokens


@component
class TokenMasking:
    """Put the mask in the place of `share` of the tokens, and of these at a rate of `random` some other token: 0.1 in
    T5's BERT-style denoising, 0 in its MASS-style one."""

    share: Share = 0.15
    random: Share = 0.0

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        tokens = text.tokens.copy()
        at = rng.choice(len(tokens), _count(tokens, self.share), replace=False)
        tokens[at] = _masks(text, len(at), self.random, rng)
        return text._replace(tokens=tokens)


@component
class TokenDeletion:
    """Take `share` of the tokens out, without a trace."""

    share: Share = 0.15

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        n = len(text.tokens)
        return _only(text, rng.permutation(n) >= _count(text.tokens, self.share))


@component
class TextInfilling:
    """Put one mask in the place of each span, whose lengths are Poisson with mean `mean`, together `share` of the
    tokens. A span of no tokens is a mask put in between two. Spans lie anywhere without overlapping; the last one drawn
    makes up for the exact share.

    random: rate at which a random token stands there instead of the mask (0.1 in published BART's command line)"""

    share: Share = 0.3
    mean: float = 3.0
    random: Share = 0.0

    def __post_init__(self) -> None:
        check_mean(self.mean)

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        hidden, at = _spans(len(text.tokens), _count(text.tokens, self.share), self.mean, rng)
        marked = np.insert(text.tokens, at, _masks(text, len(at), self.random, rng))
        starts = None if text.starts is None else np.insert(text.starts, at, False)
        return _only(text._replace(tokens=marked, starts=starts), ~np.insert(hidden, at, False))


@component
class SpanDeletion:
    """Take spans out without a trace, of lengths as in `TextInfilling` (AlexaTM 20B, Soltan et al. 2022, arXiv
    2208.01448)."""

    share: Share = 0.15
    mean: float = 3.0

    def __post_init__(self) -> None:
        check_mean(self.mean)

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        hidden, _ = _spans(len(text.tokens), _count(text.tokens, self.share), self.mean, rng)
        return _only(text, ~hidden)


@component
class SentencePermutation:
    """Put `share` of the sentences in random order; the others keep their places. A sentence begins where the rows'
    channel `sentence` says so, or else behind a full stop or the end of a document."""

    share: Share = 1.0

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        if text.starts is None:
            raise UserError(
                "SentencePermutation does not know where sentences begin: the rows have no channel `sentence` and the "
                "tokenizer no token for a full stop; set config.data.records.sentences=lines (or punctuation)"
            )
        sentences = np.split(np.arange(len(text.tokens)), np.flatnonzero(text.starts[1:]) + 1)
        moved = rng.permutation(len(sentences))[: math.ceil(self.share * len(sentences))]
        order = np.arange(len(sentences))
        order[moved] = moved[rng.permutation(len(moved))]
        at = np.concatenate([sentences[i] for i in order])
        return text._replace(tokens=text.tokens[at], starts=text.starts[at])


@component
class DocumentRotation:
    """Begin the text at a token drawn at random, and let what stood before it follow at the end: of `share` of the
    texts."""

    share: Share = 1.0

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        first = int(rng.integers(len(text.tokens)))
        if rng.random() >= self.share:
            return text
        starts = None if text.starts is None else np.roll(text.starts, -first)
        return text._replace(tokens=np.roll(text.tokens, -first), starts=starts)


@component
class Shuffling:
    """All tokens in random order (T5's deshuffling)."""

    def spoiled(self, text: Original, rng: np.random.Generator) -> Original:
        return _only(text, rng.permutation(len(text.tokens)))


def check_mean(mean: float) -> None:
    if mean < 1:
        raise UserError(f"mean span length {mean} is less than a token: give 1 or more")


def _count(tokens: np.ndarray, share: float) -> int:
    """How many of the tokens are hidden: not all."""
    return min(math.ceil(share * len(tokens)), len(tokens) - 1)


def _only(text: Original, at: np.ndarray) -> Original:
    """The text of these tokens alone, by mask or by index."""
    return text._replace(tokens=text.tokens[at], starts=None if text.starts is None else text.starts[at])


def _masks(text: Original, count: int, random: float, rng: np.random.Generator) -> np.ndarray:
    """[count] masks, of which some are random tokens."""
    if text.mask is None:
        raise UserError("the tokenizer has neither a mask nor sentinels: train one with config.data.reserved=[MASK]")
    masks = np.full(count, text.mask)
    if random:
        drawn = rng.random(count) < random
        masks[drawn] = ~rng.integers(0, text.vocab, int(drawn.sum()))
    return masks


def _spans(length: int, wanted: int, mean: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """bool [length], `wanted` tokens in spans; and before which token each span begins, those of no tokens too. There
    are at most `wanted` spans."""
    if not wanted:
        return np.zeros(length, bool), np.zeros(0, int)
    sizes = rng.poisson(mean, wanted)
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), wanted)) + 1]
    sizes[-1] += wanted - sizes.sum()
    sizes = rng.permutation(sizes)
    # Spans and kept tokens in random order: how many tokens are kept before each span?
    slots = np.sort(rng.choice(length - wanted + len(sizes), len(sizes), replace=False))
    at = slots - np.arange(len(sizes)) + np.cumsum(sizes) - sizes
    hidden = np.zeros(length + 1, int)
    np.add.at(hidden, at, 1)
    np.add.at(hidden, at + sizes, -1)
    return np.cumsum(hidden)[:-1] > 0, at
