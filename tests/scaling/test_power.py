"""Power laws of compute."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import power


@given(st.floats(1e-6, 1e6), st.floats(0.1, 1.5), st.floats(0.0, 3.0))
def test_power_laws_are_recovered_whatever_the_weights(coefficient, exponent, skew):
    C = np.geomspace(1e17, 1e22, 6)
    law = power.fit_power(C, coefficient * C**exponent, np.exp(skew * np.arange(6)))
    assert law.exponent == pytest.approx(exponent, rel=1e-6)
    assert law(1e20) == pytest.approx(coefficient * 1e20**exponent, rel=1e-6)


def test_a_budget_without_weight_counts_for_nothing():
    C = np.geomspace(1e17, 1e22, 6)
    y, loss = 0.1 * C**0.5, 1.8 + 900 * C**-0.155
    there = np.ones((2, 6))
    y, loss = np.tile(y, (2, 1)), np.tile(loss, (2, 1))
    y[1, 2], loss[1, 2], there[1, 2] = np.nan, np.nan, 0
    laws = power.allocate(C, y, y, loss, (there, there))
    assert laws.params.exponent == pytest.approx([0.5, 0.5])
    assert laws.loss.gamma == pytest.approx([0.155, 0.155], rel=1e-3)
    there[1, :3] = 0
    assert np.isnan(power.allocate(C, y, y, loss, (there, there)).loss.E[1])


def test_loss_against_compute():
    C = np.geomspace(1e18, 1e22, 6)
    law = power.fit_loss(C, 1.8 + 900 * C**-0.155)
    assert (law.E, law.gamma) == pytest.approx((1.8, 0.155), rel=1e-3)
    assert law(1e25) == pytest.approx(1.8 + 900 * 1e25**-0.155, rel=1e-4)
    assert pytest.approx(0, abs=1e-3) == power.fit_loss(C, 50 * C**-0.05).E
