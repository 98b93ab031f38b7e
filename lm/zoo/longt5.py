"""LongT5 (Guo et al. 2021, arXiv 2112.07916): T5 1.1 whose encoder attends within 127 tokens on both sides and, in the
variant with transient global attention, to a summary of each block of 16 tokens, which every layer makes anew."""

import functools

from lm.zoo.family import Family, Sizes
from lm.zoo.t5 import FIVE, t5_1_1

SIZES: Sizes = {
    "local-base": FIVE["base"],
    "local-large": FIVE["large"],
    **{f"tglobal-{size}": {**FIVE[size], "block": 16} for size in ("base", "large", "xl")},
}
FAMILIES = {"longt5": Family(functools.partial(t5_1_1, radius=127), SIZES, "arXiv 2112.07916")}
