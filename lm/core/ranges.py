"""Ranges of numbers: what a knob may be, and how that is said. A knob whose type is one of those at the end, as
`momentum: BelowOne = 0.9`, is checked against its range when it is read."""

import math
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """Finite numbers from `least` to `most`, which belong to it unless it is `above` the one or `below` the other."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, (int, float)) or (isinstance(number, float) and not math.isfinite(number)):
            return False
        low = number > self.least if self.above else number >= self.least
        return low and (number < self.most if self.below else number <= self.most)

    def __str__(self) -> str:
        low = f"greater than {self.least}" if self.above else f"at least {self.least}"
        high = f"less than {self.most}" if self.below else f"at most {self.most}"
        match math.isfinite(self.least), math.isfinite(self.most):
            case True, True if not (self.above or self.below):
                return f"between {self.least} and {self.most}"
            case True, True:
                return f"{low} and {high}"
            case True, False:
                return low
            case False, True:
                return high
        return "a finite number"


FINITE = Range()
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
AT_LEAST_1 = Range(1)
SHARE = Range(0, 1)  # the whole included
BELOW_1 = Range(0, 1, below=True)

Positive = Annotated[float, POSITIVE]
NotNegative = Annotated[float, NOT_NEGATIVE]
Share = Annotated[float, SHARE]
BelowOne = Annotated[float, BELOW_1]
Count = Annotated[int, AT_LEAST_1]
CountOrNone = Annotated[int, NOT_NEGATIVE]  # 0: none, or never
