"""Rates at which the sources of a mixture are sampled, from their sizes."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from lm.core.ranges import CountOrNone, Share


@dataclasses.dataclass(frozen=True)
class Rates:
    """The rate of a source, up to a common factor: weight * min(size, cap) ** exponent.

    `weight` is what `data.mixture` gives it. By `documents` or `tokens`, exponent 1 is proportional mixing, with `cap`
    as T5 has it (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2: K examples), 0 is equal mixing, and between them
    small sources count for more: 1 / T is T5's temperature T, 0.3 what mT5 gives languages (Xue et al. 2021, arXiv
    2010.11934, section 3.2: alpha)."""

    by: Literal["weight", "documents", "tokens"] = "weight"  # weight: as given, without regard to sizes
    cap: CountOrNone = 0  # a larger source counts as one of so many documents or tokens; 0: none
    exponent: Share = 1.0  # of the size: 1 proportional, 0 equal, 0.3 as mT5, 1 / temperature

    def of(self, sizes: Sequence[int], weights: Sequence[float]) -> tuple[float, ...]:
        """The rates of sources with these sizes and weights."""
        if self.by == "weight":
            return tuple(weights)
        counted = [min(size, self.cap) if self.cap else size for size in sizes]
        return tuple(weight * size**self.exponent for size, weight in zip(counted, weights, strict=True))
