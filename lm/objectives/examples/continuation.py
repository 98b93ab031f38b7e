"""Denoisers that cut a text in two: the inputs are its start and the targets its end, without sentinels."""

import math

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.objectives.examples.denoiser import MaxSizes, Original, Pair


@component
class PrefixLM:
    """Continue a text whose end is up to 2 * `density` of it: the share of the targets is uniform with that mean. At
    0.5 the cut lies anywhere (T5's prefix LM), at 0.25 in the second half (UL2's S-denoiser)."""

    density: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.density <= 0.5:
            raise UserError(f"mean share of the targets is {self.density}: give a fraction of at most 0.5")

    def sizes(self, length: int) -> MaxSizes:
        return MaxSizes(length - 1, max(round(2 * self.density * (length - 1)), 1), 0, length)

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        cut = len(text.tokens) - int(rng.integers(1, self.sizes(len(text.tokens)).targets + 1))
        return text.tokens[:cut], text.tokens[cut:]


@component
class Continuation:
    """Continue a text of which `least` to `most` is given, each cut between equally likely: 0.2 to 0.8 in AlexaTM
    (Soltan et al. 2022, arXiv 2208.01448), 0.1 to 0.9 in CodeT5+ (Wang et al. 2023, arXiv 2305.07922). With both at 0
    nothing is given, and a decoder writes the whole of it."""

    least: Share = 0.2
    most: Share = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most < 1:
            raise UserError(f"least={self.least} and most={self.most} are the shares given: 0 <= least <= most < 1")

    def _cuts(self, length: int) -> tuple[int, int]:
        """The first and the last place to cut; something is given where `least` is above 0."""
        first = min(math.ceil(self.least * length), length - 1)
        return first, max(first, math.floor(self.most * length))

    def sizes(self, length: int) -> MaxSizes:
        first, last = self._cuts(length)
        return MaxSizes(last, length - first, 0, length)

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        first, last = self._cuts(len(text.tokens))
        cut = int(rng.integers(first, last + 1))
        return text.tokens[:cut], text.tokens[cut:]
