"""Parameter counts of the published sizes, to the unit, and without allocating a parameter."""

import pytest

from lm.core.param import count
from lm.zoo.build import FAMILIES, build

# Each is the size of the released checkpoint (summed over its tensors, the tied head once) or, where none was released,
# what the paper's table of shapes implies.
COUNTS = {
    # Radford et al. 2019; checkpoints of openai/gpt-2
    ("gpt2", "small"): 124_439_808,
    ("gpt2", "medium"): 354_823_168,
    ("gpt2", "large"): 774_030_080,
    ("gpt2", "xl"): 1_557_611_200,
    # Brown et al. 2020, arXiv 2005.14165, table 2.1, with 16 heads for XL and d = 5120 for 13B
    ("gpt3", "small"): 125_226_240,
    ("gpt3", "medium"): 355_871_744,
    ("gpt3", "large"): 760_300_032,
    ("gpt3", "xl"): 1_315_723_264,
    ("gpt3", "2.7b"): 2_651_553_280,
    ("gpt3", "6.7b"): 6_658_404_352,
    ("gpt3", "13b"): 12_853_386_240,
    ("gpt3", "175b"): 174_604_259_328,
    # Touvron et al. 2023, arXiv 2302.13971, table 2
    ("llama", "1-7b"): 6_738_415_616,
    ("llama", "1-13b"): 13_015_864_320,
    ("llama", "1-33b"): 32_528_943_616,
    ("llama", "1-65b"): 65_285_660_672,
    # Touvron et al. 2023, arXiv 2307.09288; 34b has the shape of Code Llama's (2308.12950)
    ("llama", "2-7b"): 6_738_415_616,
    ("llama", "2-13b"): 13_015_864_320,
    ("llama", "2-34b"): 33_743_970_304,
    ("llama", "2-70b"): 68_976_648_192,
    # Llama team 2024, arXiv 2407.21783, table 3
    ("llama", "3-8b"): 8_030_261_248,
    ("llama", "3-70b"): 70_553_706_496,
    ("llama", "3.1-8b"): 8_030_261_248,
    ("llama", "3.1-70b"): 70_553_706_496,
    ("llama", "3.1-405b"): 405_853_388_800,
}


@pytest.mark.parametrize(("family", "size"), COUNTS)
def test_parameter_counts(family, size):
    assert count(build({"family": family, "size": size}).spec()) == COUNTS[family, size]


def test_every_size_has_a_count():
    assert set(COUNTS) == {(name, size) for name, family in FAMILIES.items() for size in family.sizes}
