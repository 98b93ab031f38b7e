from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.mixture import Mixture

WEIGHT = st.floats(1e-3, 1e3)


def counts(mixture, rows):
    """Of each source after each row."""
    found = [[0] * len(mixture.weights)]
    for n in range(rows):
        source, i = mixture.locate(n)
        assert i == found[-1][source], "each source's rows come in order, without a gap"
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
