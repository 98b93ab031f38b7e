"""Envelopes and hulls of training curves."""

import numpy as np
import pytest

from lm.core.errors import UserError
from scaling import approach1
from scaling.approach1 import Envelope, Hull
from scaling.laws import EPOCH


def curves(law=EPOCH, sizes=24, points=60, noise=0.0, seed=0):
    """Runs of sizes from 1e7 to 1e10, each from 3 to 300 tokens a parameter."""
    N = np.repeat(np.geomspace(1e7, 1e10, sizes), points)
    D = N * np.tile(np.geomspace(3, 300, points), sizes)
    loss = law.predict(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(sizes)).repeat(points)
    return approach1.curves_of(N, D, loss, 6 * N * D, N)


@pytest.mark.parametrize("estimator", [Envelope, Hull])
def test_a_law_without_noise_is_recovered(estimator):
    found = approach1.fit(estimator, curves())
    a, b = EPOCH.exponents
    assert (found.params.exponent, found.tokens.exponent) == pytest.approx((a, b), abs=0.01)
    N, D = EPOCH.optimal(1e22)
    said = found.decisions(1e22)
    assert (said["N_opt"], said["D_opt"]) == pytest.approx((N, D), rel=0.1)
    assert said["loss"] == pytest.approx(EPOCH.predict(N, D), rel=2e-3)


@pytest.mark.parametrize("estimator", [Envelope, Hull])
def test_nothing_lies_below_the_best_points(estimator):
    runs = curves(noise=0.01)
    best = approach1.fit(estimator, runs).best
    at = np.concatenate([c.C for c in runs])
    lowest = np.exp(np.interp(np.log(at), np.log(best.C), np.log(best.loss), left=-np.inf, right=-np.inf))
    # an envelope on a grid is within what a curve falls between two of its values
    assert (np.concatenate([c.loss for c in runs]) >= lowest * (1 - 5e-3)).all()


def test_the_best_of_one_sided_runs_are_left_out():
    """Where only larger models, or only smaller ones, had reached a budget, no size is known to be best. Leaving out
    what lies at the edge would favour lucky runs inside it, were it done by what is best rather than by the law."""
    best = approach1.fit(Envelope, curves()).best
    assert best.N.min() > 1e7 and best.N.max() < 1e10
    exponents = [approach1.fit(Envelope, curves(noise=0.003, seed=seed)).params.exponent for seed in range(20)]
    assert np.mean(exponents) == pytest.approx(EPOCH.exponents[0], abs=0.005)


def test_intervals_hold_the_truth_and_come_from_whole_runs():
    found = approach1.fit(Envelope, curves(noise=0.003))
    drawn = approach1.bootstrap(found, resamples=100)
    low, high = np.percentile(drawn.params.exponent, [5, 95])
    assert low < EPOCH.exponents[0] < high and 0.005 < high - low < 0.2
    assert drawn.loss is not None and drawn.loss(1e23).shape == drawn.params(1e23).shape == (100,)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """Or more often: a draw without some of the curves has fewer sizes to choose from than there are."""
    held = 0
    for seed in range(40):
        fitted = approach1.fit(Envelope, curves(points=8, noise=0.003, seed=seed))
        drawn = approach1.bootstrap(fitted, resamples=40, seed=seed)
        low, high = np.percentile(drawn.params.exponent, [5, 95])
        held += low <= EPOCH.exponents[0] <= high
    assert held / 40 >= 0.85


def test_points_of_equal_compute_are_averaged():
    (curve,) = approach1.curves_of([1e8] * 3, [1e9, 1e9, 2e9], [3.0, 3.2, 2.9], [6e17, 6e17, 1.2e18], ["a"] * 3)
    assert curve.loss == pytest.approx([np.sqrt(3.0 * 3.2), 2.9])


def test_what_has_no_envelope_is_refused():
    with pytest.raises(UserError, match=r"run a has params 1e\+08 and 2e\+08"):
        approach1.curves_of([1e8, 2e8], [1e9, 1e9], [3.0, 2.9], [6e17, 1.2e18], ["a", "a"])
    points = approach1.curves_of([1e8, 2e8], [1e9, 1e9], [3.0, 2.9], [6e17, 1.2e18], ["a", "b"])
    with pytest.raises(UserError, match="no run has two points"):
        approach1.fit(Envelope, points)
    with pytest.raises(UserError, match="0 sizes are the best"):
        approach1.fit(Hull, points)
    with pytest.raises(UserError, match="0 sizes are the best"):
        approach1.fit(Envelope, curves(sizes=2))
