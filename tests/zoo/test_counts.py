"""Parameter counts of the published sizes, to the unit where they are known so well, and without allocating one."""

import pytest

from lm.core.param import count
from lm.inspect.cost import active_parameters
from lm.zoo.electra import SIZES as ELECTRA
from lm.zoo.electra import electra_pair
from lm.zoo.registry import FAMILIES, build
from tests.zoo.counts import ACTIVE, APPROXIMATE, COUNTS, UNCOUNTED
from tests.zoo.counts.encoders import HEADED, PRETRAINED


@pytest.mark.parametrize(("family", "size"), COUNTS)
def test_parameter_counts(family, size):
    assert count(build({"family": family, "size": size}).spec()) == COUNTS[family, size]


@pytest.mark.parametrize(("family", "size"), ACTIVE)
def test_active_parameters(family, size):
    assert active_parameters(build({"family": family, "size": size})) == ACTIVE[family, size]


@pytest.mark.parametrize(("family", "size", "head"), HEADED)
def test_counts_with_other_heads(family, size, head):
    assert count(build({"family": family, "size": size, "head": head}).spec()) == HEADED[family, size, head]


@pytest.mark.parametrize(("family", "size", "heads"), PRETRAINED)
def test_counts_with_heads_for_pretraining(family, size, heads):
    assert (
        count(build({"family": family, "size": size, "pretraining": heads}).spec()) == PRETRAINED[family, size, heads]
    )


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_a_pair_holds_its_tables_once(size):
    sizes = ELECTRA[size], ELECTRA[f"{size}-generator"]
    tables = (30522 + 512) * sizes[1]["embed_width"]
    apart = COUNTS["electra", size] + COUNTS["electra", f"{size}-generator"]
    assert count(electra_pair(discriminator=sizes[0], generator=sizes[1]).spec()) == apart - tables


@pytest.mark.parametrize(("family", "size"), APPROXIMATE)
def test_approximate_counts(family, size):
    published, doubt = APPROXIMATE[family, size]
    ours = count(build({"family": family, "size": size}).spec())
    assert abs(ours / published - 1) < 0.015, doubt


def test_every_size_has_a_count():
    known = {(name, size) for name, family in FAMILIES.items() if name not in UNCOUNTED for size in family.sizes}
    assert COUNTS.keys() | APPROXIMATE.keys() == known
