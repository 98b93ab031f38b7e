"""Denoisers that write what was taken out and no more: spans or single tokens (T5, Raffel et al. 2020, arXiv
1910.10683, section 3.3)."""

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.objectives.examples.denoiser import MaxSizes, Original, Pair


@component
class SpanCorruption:
    """Replace spans of `mean` tokens on average, `density` of all tokens, by sentinels: "Thank you for
    inviting me to your party" becomes "Thank you <0> me to your <1>", with the targets "<0> for inviting <1>
    party <2>".

    The numbers of noise tokens and of spans follow from the length alone; among the masks that have these,
    begin with text and end in noise, each is equally likely. So rows of the right length fill inputs and targets
    exactly (`lm.objectives.examples.denoising.filling`).

    final: whether the targets end in one more sentinel, as in the paper; T5's published data code leaves it out,
        since nothing follows the last span"""

    mean: float = 3.0
    density: float = 0.15
    final: bool = True

    def __post_init__(self) -> None:
        if self.mean < 1:
            raise UserError(f"mean span length {self.mean} is less than a token: give 1 or more")
        check_density(self.density)

    def counts(self, length: int) -> tuple[int, int]:
        """(noise tokens, spans) of `length` >= 2 tokens: at least one of each, and some text before every
        span."""
        noise = noise_tokens(length, self.density)
        return noise, min(max(round(noise / self.mean), 1), length - noise)

    def sizes(self, length: int) -> MaxSizes:
        noise, spans = self.counts(length)
        return sizes_of(length, noise, spans, self.final)

    def noise_mask(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """bool [length]: which tokens are taken out."""
        noise, spans = self.counts(length)
        kept, hidden = _partition(length - noise, spans, rng), _partition(noise, spans, rng)
        return np.repeat(np.tile([False, True], spans), np.stack([kept, hidden], axis=1).ravel())

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        return split_at(text, self.noise_mask(len(text.tokens), rng), self.final)


@component
class IIDCorruption:
    """Replace single tokens, `density` of all, wherever they are; neighbours that go together share a sentinel (BERT,
    as T5's section 3.3.2 has it). How many tokens go follows from the length; which, is random."""

    density: float = 0.15
    final: bool = True

    def __post_init__(self) -> None:
        check_density(self.density)

    def sizes(self, length: int) -> MaxSizes:
        noise = noise_tokens(length, self.density)
        return sizes_of(length, noise, min(noise, length - noise + 1), self.final)

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        return split_at(text, _anywhere(len(text.tokens), self.density, rng), self.final)


@component
class DroppedTokens:
    """Take single tokens out, `density` of all, and leave no trace of them; the targets are these tokens."""

    density: float = 0.15

    def __post_init__(self) -> None:
        check_density(self.density)

    def sizes(self, length: int) -> MaxSizes:
        noise = noise_tokens(length, self.density)
        return MaxSizes(length - noise, noise, 0, length)

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        noise = _anywhere(len(text.tokens), self.density, rng)
        return text.tokens[~noise], text.tokens[noise]


def sizes_of(length: int, noise: int, spans: int, final: bool) -> MaxSizes:
    """Where every span has a sentinel on both sides."""
    return MaxSizes(length - noise + spans, noise + spans + final, spans + final, length + 2 * spans + final)


def check_density(density: float) -> None:
    if not 0 < density < 1:
        raise UserError(f"noise density is {density}: give a fraction between 0 and 1, such as 0.15")


def noise_tokens(length: int, density: float) -> int:
    """How many of `length` >= 2 tokens are noise: not none, and not all."""
    return min(max(round(length * density), 1), length - 1)


def split_at(text: Original, noise: np.ndarray, final: bool) -> Pair:
    """Each run of `noise`, bool [n], under a sentinel of its own; the targets end in another one if `final`."""
    starts = np.flatnonzero(noise & ~np.concatenate([[False], noise[:-1]]))
    # With each sentinel before its span: inputs are sentinels and text, targets are sentinels and noise.
    marked = np.insert(text.tokens, starts, text.sentinels[: len(starts)])
    is_noise = np.insert(noise, starts, False)
    is_sentinel = np.insert(np.zeros(len(noise), bool), starts, True)
    targets = marked[is_noise | is_sentinel]
    return marked[~is_noise], np.append(targets, text.sentinels[len(starts)]) if final else targets


def _anywhere(length: int, density: float, rng: np.random.Generator) -> np.ndarray:
    noise = np.arange(length) < noise_tokens(length, density)
    return rng.permutation(noise)


def _partition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`parts` positive integers that add up to `total`, each such list as likely as any other."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False, shuffle=False)) + 1
    return np.diff(cuts, prepend=0, append=total)
