"""Schedules rise along a line, fall as their papers say, and end where they are told to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.train.optim.schedule import WSD, ConstantRate, Cosine, InverseSqrt, Linear


@settings(max_examples=60)
@given(
    st.sampled_from([WSD, ConstantRate, Cosine, InverseSqrt, Linear]),
    st.integers(1, 300),
    st.integers(0, 400),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.05, 0.2, 0.7, 1.0]),
)
def test_schedules(kind, steps, warmup, final, cooldown):
    knobs = {} if kind in (ConstantRate, InverseSqrt) else {"final_lr_ratio": final}
    schedule = kind(warmup=warmup, **knobs, **({"cooldown_fraction": cooldown} if kind is WSD else {}))
    every = np.arange(301)  # always as many, so that each operation is compiled once
    rate = np.broadcast_to(schedule(every, steps), every.shape)[: steps + 1]
    assert (rate >= 0).all() and (rate <= 1 + 1e-6).all()
    up = np.arange(1, min(warmup, steps) + 1) / max(warmup, 1)
    if kind is ConstantRate or (kind is WSD and cooldown == 0):
        np.testing.assert_allclose(rate[: len(up)], up, rtol=1e-5)
    assert (rate[: len(up)] <= up + 1e-6).all()
    after = rate[warmup:]
    assert (np.diff(after) <= 1e-6).all()
    if warmup >= steps:
        return
    if kind is InverseSqrt:
        at = max(warmup, 1)
        np.testing.assert_allclose(after, np.sqrt(at / np.maximum(np.arange(warmup, steps + 1) + 1, at)), rtol=1e-5)
    elif kind is ConstantRate:
        assert (after == 1).all()
    else:
        np.testing.assert_allclose(rate[-1], 1.0 if kind is WSD and cooldown == 0 else final, atol=2e-3)
    if kind is Linear:
        np.testing.assert_allclose(np.diff(after, 2), 0, atol=1e-5)
    if kind is Cosine:
        assert after[0] == pytest.approx(1)
        assert rate[(steps + warmup) // 2] >= (1 + final) / 2 - 1e-5
    if kind is WSD:
        start = int(np.floor(steps * (1 - cooldown)))
        np.testing.assert_allclose(rate[warmup : max(start, warmup)], 1)
        if start >= warmup and cooldown * steps >= 4:
            quarter = steps * (1 - cooldown) + steps * cooldown / 4
            below, above = int(np.floor(quarter)), int(np.ceil(quarter))
            assert rate[above] - 1e-5 <= 1 - (1 - final) * 0.5 <= rate[below] + 1e-5


def test_a_schedule_may_end_or_begin_its_fall_at_a_step_of_its_own():
    """GPT-3 stays at a tenth once 260 of 300 billion tokens are read; T5 and PaLM hold the peak for 10,000 steps."""
    early, whole = Cosine(warmup=10, decay=80), Cosine(warmup=10)
    np.testing.assert_allclose(
        early(np.array([5, 40, 80, 99]), 100), [*whole(np.array([5, 40]), 80), 0.1, 0.1], rtol=1e-6
    )
    held = InverseSqrt(warmup=0, constant=100)
    np.testing.assert_allclose(held(np.array([0, 99, 399]), 1000), [1, 1, 0.5], rtol=1e-6)
