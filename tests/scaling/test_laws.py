"""Closed forms of the Chinchilla law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from scaling.laws import EPOCH, HOFFMANN, HOFFMANN_PRINTED, KAPLAN, Chinchilla

exponents = st.floats(0.1, 1.0)
laws = st.builds(
    Chinchilla, E=st.floats(0.1, 3), A=st.floats(1, 1e4), B=st.floats(1, 1e4), alpha=exponents, beta=exponents
)
budgets = st.floats(1e12, 1e26)


@given(laws, budgets)
def test_the_frontier_spends_the_budget_and_meets_the_first_order_condition(law, C):
    N, D = law.optimal(C)
    assert pytest.approx(C, rel=1e-9) == 6 * N * D
    # Along 6 N D = C a step in log N is minus a step in log D, so both terms must fall at the same rate.
    assert law.alpha * law.A / N**law.alpha == pytest.approx(law.beta * law.B / D**law.beta, rel=1e-9)


@given(laws, budgets, st.floats(0.5, 2))
def test_no_other_split_of_the_budget_is_better(law, C, factor):
    N, D = law.optimal(C)
    assert law.predict(N * factor, D / factor) >= law.predict(N, D) * (1 - 1e-12)


@given(laws, budgets)
def test_exponents_are_the_slopes_of_the_frontier(law, C):
    a, b = law.exponents
    (n0, d0), (n1, d1) = law.optimal(C), law.optimal(10 * C)
    assert (np.log10(n1 / n0), np.log10(d1 / d0)) == pytest.approx((a, b), abs=1e-9)
    assert a + b == pytest.approx(1)


def test_published_constants():
    assert pytest.approx(406.4, abs=0.05) == HOFFMANN.A
    assert pytest.approx(410.7, abs=0.05) == HOFFMANN.B
    assert HOFFMANN.exponents[0] == pytest.approx(0.4565, abs=5e-5)
    assert EPOCH.exponents[0] == pytest.approx(0.513, abs=5e-4)
    # Rounding the exponent moves the data term by 13 % at 1e11 tokens.
    term, printed = (law.B / 1e11**law.beta for law in (HOFFMANN, HOFFMANN_PRINTED))
    assert printed / term == pytest.approx(1.13, abs=0.005)


def test_kaplan_s_frontier():
    """Its published table 2; and that no other split of a budget is better."""
    N, D = KAPLAN.optimal(1e21)
    assert pytest.approx(1e21) == 6 * N * D
    assert KAPLAN.exponents[0] == pytest.approx(1 / (1 + 0.076 / 0.103))
    for factor in (0.9, 1.1):
        assert KAPLAN.predict(N * factor, D / factor) > KAPLAN.predict(N, D)
    # Where data abound, the loss of the size alone, and the other way round.
    assert KAPLAN.predict(1e9, np.inf) == pytest.approx((6.4e13 / 1e9) ** 0.076)
    assert KAPLAN.predict(np.inf, 1e10) == pytest.approx((1.8e13 / 1e10) ** 0.103)


def test_arrays_of_laws_broadcast():
    both = Chinchilla(
        *(np.array([getattr(law, f) for law in (HOFFMANN, EPOCH)]) for f in ("E", "A", "B", "alpha", "beta"))
    )
    each = [law.optimal(1e21) for law in (HOFFMANN, EPOCH)]
    n, d = both.optimal(1e21)
    assert n == pytest.approx([N for N, _ in each])
    assert both.predict(n, d) == pytest.approx([float(HOFFMANN.predict(*each[0])), float(EPOCH.predict(*each[1]))])


def test_a_law_that_more_data_worsens_has_no_frontier():
    with pytest.raises(UserError, match=r"beta = -0\.1.*wider range"):
        Chinchilla(1.7, 400, 400, 0.3, -0.1).optimal(1e21)
