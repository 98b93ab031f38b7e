"""Rules for learning rate and batch, against what their papers print."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.ladder import Rung
from scaling.rules import RULES, DeepSeek, Porian, Run, StepLaw, Width

SEVEN = Rung(d_model=4096, layers=30, params=6_900_000_000, in_vocabulary=840_000_000, flops=4.3e10)


def test_deepseek_by_its_own_count():
    """DeepSeek LLM 7B was trained on 2T tokens with rows of 4096: rate 4.2e-4, 2304 rows."""
    run = Run(SEVEN, 2e12, 4096)
    knobs = DeepSeek()(run)
    C = (72 * 30 * 4096**2 + 12 * 30 * 4096 * 4096) * 2e12
    assert DeepSeek().reads(run)["C"] == pytest.approx(C)
    assert knobs.learning_rate == pytest.approx(4.2e-4, rel=0.05)
    assert knobs.batch == pytest.approx(2304 * 4096, rel=0.05)


def test_porian():
    small = Porian()(Run(Rung(512, 8, 50_000_000, 0, 3e8), 1e9, 2048))
    assert small.learning_rate == pytest.approx(3.7 * 5e7**-0.36)
    assert small.batch == pytest.approx(0.7576 * 5e7**0.703)
    assert small.b2 == 0.99 and small.warmup == 5e7
    large = Porian()(Run(Rung(512, 8, 900_000_000, 0, 6e9), 2e10, 2048))
    assert large.b2 == 0.95


def test_step_law_leaves_the_vocabulary_out():
    run = Run(SEVEN, 1e11, 2048)
    rate = 1.79 * (6.9e9 - 8.4e8) ** -0.713 * 1e11**0.307
    assert StepLaw()(run).learning_rate == pytest.approx(rate)
    assert StepLaw()(run).batch == pytest.approx(0.58 * 1e11**0.571)


def test_width_halves_the_rate_of_twice_the_width():
    narrow, wide = (Width()(Run(Rung(d, 2, 10_000, 0, 6e4), 1e6, 128)) for d in (16, 32))
    assert narrow.learning_rate == 2 * wide.learning_rate == 0.128 / 16
    assert narrow.batch is None and narrow.weight_decay is None  # the config's


def test_outside_of_what_was_fitted_is_said():
    run = Run(SEVEN, 2e12, 4096)
    assert "N = 6.9e+09 lies outside" in str(Porian().outside(run))
    assert "arXiv 2401.02954" in str(DeepSeek().outside(run))
    assert Width().outside(run) is None


@given(
    params=st.floats(1e4, 1e12),
    ratio=st.floats(0.1, 1e3),
    length=st.integers(8, 1 << 17),
    rule=st.sampled_from(sorted(RULES)),
)
def test_every_rule_says_possible_values(params, ratio, length, rule):
    rung = Rung(64, 2, int(params), int(params / 3), 6 * params)
    knobs = RULES[rule]()(Run(rung, params * ratio, length))
    assert 0 < knobs.learning_rate < math.inf
    assert knobs.batch is None or knobs.batch >= length
    assert knobs.warmup is None or 0 <= knobs.warmup <= 0.1 * params * ratio * (1 + 1e-9)
    assert knobs.b2 in (None, 0.95, 0.99)
