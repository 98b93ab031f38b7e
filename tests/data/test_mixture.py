from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.mixture import Mixture
from lm.data.rates import Rates

WEIGHT = st.floats(1e-3, 1e3)


def counts(mixture, rows):
    """Of each source after each row."""
    found = [[0] * len(mixture.weights)]
    for n in range(rows):
        source, i = mixture.locate(n)
        assert i == found[-1][source], "each source's rows come in order, without a gap"
        assert mixture.before(n) == tuple(found[-1])
        found.append([c + (s == source) for s, c in enumerate(found[-1])])
    return found


@given(WEIGHT, WEIGHT)
def test_two_sources_are_exact_to_half_a_row(a, b):
    share = Fraction(a) / (Fraction(a) + Fraction(b))
    for n, (left, _) in enumerate(counts(Mixture((a, b)), 200)):
        assert abs(left - n * share) <= Fraction(1, 2)


@given(st.lists(WEIGHT, min_size=1, max_size=6))
def test_more_sources_stay_close(weights):
    total = sum(map(Fraction, weights))
    for n, found in enumerate(counts(Mixture(tuple(weights)), 150)):
        for weight, c in zip(weights, found, strict=True):
            assert abs(c - n * Fraction(weight) / total) <= Fraction(1, 2) * max(1, len(weights) - 1)


def test_four_equal_sources_stay_within_three_quarters():
    for n, found in enumerate(counts(Mixture((1.0,) * 4), 400)):
        assert max(abs(c - n / 4) for c in found) <= 0.75


def test_far_rows_are_found_at_once_and_do_not_drift():
    mixture = Mixture((0.1, 0.2, 0.7))
    n = 10**15
    source, i = mixture.locate(n)
    assert abs(i - n * mixture.weights[source]) < 2


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (float("nan"),), (-1.0, 2.0)])
def test_wrong_weights(weights):
    with pytest.raises(UserError, match="mixture"):
        Mixture(weights)


def test_rates_by_size():
    """Temperature and cap by hand: T5 (section 3.5.2) has min(e, K), to the power of 1 / T."""
    sizes, ones = (100, 10_000, 1_000_000), (1.0, 1.0, 1.0)
    assert Rates().of(sizes, (3.0, 1.0, 0.5)) == (3.0, 1.0, 0.5)
    assert Rates("documents").of(sizes, ones) == sizes
    assert Rates("documents", cap=20_000).of(sizes, ones) == (100, 10_000, 20_000)
    assert Rates("tokens", exponent=0.0).of(sizes, ones) == (1, 1, 1)
    assert Rates("tokens", exponent=0.5).of(sizes, (1.0, 2.0, 1.0)) == pytest.approx((10, 200, 1000))


def test_rates_of_languages():
    """mT5's table 6 (arXiv 2010.11934): pages of five languages in millions, and their shares at alpha 0.3. The whole
    table's sum cancels in ratios."""
    pages = {"en": 3067, "ru": 756, "sw": 0.985, "ur": 1.95, "yo": 0.046}
    shares = {"en": 5.67, "ru": 3.71, "sw": 0.5, "ur": 0.61, "yo": 0.2}
    rates = Rates("documents", exponent=0.3).of([int(n * 1e6) for n in pages.values()], [1.0] * 5)
    assert [rate / rates[0] for rate in rates] == pytest.approx([s / shares["en"] for s in shares.values()], rel=0.03)
