"""Parameter counts of the published sizes, to the unit where they are known so well, and without allocating one."""

import pytest

from lm.core.param import count
from lm.zoo.build import FAMILIES, build
from tests.zoo.counts import APPROXIMATE, COUNTS, UNCOUNTED


@pytest.mark.parametrize(("family", "size"), COUNTS)
def test_parameter_counts(family, size):
    assert count(build({"family": family, "size": size}).spec()) == COUNTS[family, size]


@pytest.mark.parametrize(("family", "size"), APPROXIMATE)
def test_approximate_counts(family, size):
    published, doubt = APPROXIMATE[family, size]
    ours = count(build({"family": family, "size": size}).spec())
    assert abs(ours / published - 1) < 0.015, doubt


def test_every_size_has_a_count():
    known = {(name, size) for name, family in FAMILIES.items() if name not in UNCOUNTED for size in family.sizes}
    assert COUNTS.keys() | APPROXIMATE.keys() == known
