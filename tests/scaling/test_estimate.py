"""What a fit says of itself: profiles, predictions, held-out errors, and what is kept of it in a file."""

import json

import numpy as np
import pytest

from scaling import engine
from scaling.laws import HOFFMANN, Chinchilla

LAW = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(1e9, 1e12, 7)))
NOISE = 0.005


@pytest.fixture(scope="module")
def known():
    """A fit to noisy runs of a law, and all that is known of it."""
    loss = LAW.predict(N, D) * np.exp(NOISE * np.random.default_rng(0).standard_normal(len(N)))
    fitted = engine.fit(Chinchilla, (N, D), loss, starts=32)
    resampled = engine.bootstrap((N, D), loss, fitted, resamples=100)
    ranges = {"params": (N.min(), N.max()), "tokens": (D.min(), D.max())}
    return loss, fitted, engine.Estimate(fitted.law, resampled, engine.scatter(fitted, (N, D), loss), ranges)


def test_the_noise_is_that_of_the_runs(known):
    assert known[2].noise == pytest.approx(NOISE, rel=0.3)


def test_profiles_hold_the_truth_and_the_fit(known):
    loss, fitted, _ = known

    def quantities(law):
        return law.constants() | law.decisions(1e23)

    profiles = engine.profile(fitted, (N, D), loss, quantities, level=99)
    truth, best = quantities(LAW), quantities(fitted.law)
    assert profiles.keys() == truth.keys()
    for name, profile in profiles.items():
        assert profile.low < truth[name] < profile.high, name
        assert profile.low < best[name] < profile.high, name
        assert profile.rises.min() == 0 and profile.rises[0] > 1 < profile.rises[-1], name
        assert (np.diff(profile.values) > 0).all(), name


def test_a_profile_is_the_least_objective_that_a_held_constant_allows(known):
    loss, fitted, _ = known
    profile = engine.profile(fitted, (N, D), loss, lambda law: {"E": law.E})["E"]
    units = []
    for i in (3, -4):
        held = engine.fit(Chinchilla, (N, D), loss, starts=32, fixed={"E": float(profile.values[i])})
        units.append((held.objective - fitted.objective) / profile.rises[i])
    assert units[0] > 0 and units[1] == pytest.approx(units[0], rel=1e-3)


def test_what_runs_do_not_show_has_no_end(known):
    """The data term where all runs have plenty of data: no exponent is too large for it."""
    rng = np.random.default_rng(0)
    d = np.tile(np.geomspace(1e15, 1e18, 6), 6)
    n = np.repeat(np.geomspace(1e8, 1e10, 6), 6)
    loss = LAW.predict(n, d) * np.exp(NOISE * rng.standard_normal(36))
    fitted = engine.fit(Chinchilla, (n, d), loss, starts=32, force=True)
    profile = engine.profile(fitted, (n, d), loss, lambda law: {"alpha": law.alpha, "beta": law.beta})
    assert np.isfinite([profile["alpha"].low, profile["alpha"].high]).all()
    assert "beta" not in profile or np.isnan([profile["beta"].low, profile["beta"].high]).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [0, 1])  # a fit whose E is as good as zero, and one where it may be
def test_profiles_of_runs_that_hardly_show_the_floor(seed):
    law = Chinchilla(1.0, 30.0, 2000.0, 0.15, 0.4)
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    loss = law.predict(n, d) * np.exp(0.02 * np.random.default_rng(seed).standard_normal(25))
    fitted = engine.fit(Chinchilla, (n, d), loss, starts=16)
    found = engine.profile(fitted, (n, d), loss, lambda law: {"E": law.E} | law.decisions(1e24), level=95)
    assert (fitted.law.E < 1e-3) == (seed == 0)
    assert np.isnan(found["E"].low) and found["E"].high > 1.0
    assert "the objective rises by" in found["E"].why[0] and not found["E"].why[1]
    # Decisions have ends, whether or not E was zero where they began, and one tells the other: a + b = 1, 6 N D = C.
    ends = {name: (profile.low, profile.high) for name, profile in found.items()}
    assert np.isfinite([ends[name] for name in ("a", "b", "N_opt", "D_opt", "D/N", "loss")]).all()
    assert ends["a"] == pytest.approx((1 - ends["b"][1], 1 - ends["b"][0]), rel=0.1)
    assert ends["N_opt"] == pytest.approx((1e24 / 6 / ends["D_opt"][1], 1e24 / 6 / ends["D_opt"][0]), rel=0.1)


def test_predictions(known):
    *_, estimate = known
    said = estimate.predict([1e9, 7e10], [2e10, 1.4e12])
    assert said.value == pytest.approx(estimate.law.predict(np.array([1e9, 7e10]), np.array([2e10, 1.4e12])))
    assert (said.run_low < said.low).all() and (said.low < said.value).all() and (said.value < said.high).all()
    # Within the runs the scatter of a run is most of what is not known; far beyond them the law itself is.
    fit, run = said.high / said.low - 1, said.run_high / said.run_low - 1
    assert fit[0] < 0.5 * run[0] and fit[1] > fit[0]
    assert estimate.predict(1e9, 2e10).value.shape == ()
    narrow, wide = (estimate.predict(7e10, 1.4e12, level=level) for level in (50, 95))
    assert wide.run_low < narrow.run_low < narrow.run_high < wide.run_high


def test_decisions_and_constants_have_intervals(known):
    *_, estimate = known
    a = estimate.decisions(1e23)["a"]
    assert a.low < LAW.exponents[0] < a.high and a.value == estimate.law.exponents[0]
    assert estimate.constants(99)["E"].low < LAW.E < estimate.constants(99)["E"].high
    alone = engine.Estimate(HOFFMANN, None, np.zeros(1), {})
    assert np.isnan(alone.decisions(1e23)["a"].low) and alone.predict(1e9, 2e10).low == HOFFMANN.predict(1e9, 2e10)


def test_what_is_written_is_read_back(known):
    *_, estimate = known
    again = engine.from_json(json.loads(json.dumps(engine.to_json(estimate, "chinchilla"))), Chinchilla)
    assert again.law == estimate.law and again.ranges == estimate.ranges
    assert again.predict(7e10, 1.4e12).run_low == estimate.predict(7e10, 1.4e12).run_low


def test_larger_runs_are_held_out_and_predicted(known):
    loss = known[0]
    flops = 6 * N * D
    held = engine.largest(flops, 2)
    assert 3 < held.sum() < 20 and flops[held].min() > flops[~held].max()
    score = engine.holdout(Chinchilla, (N, D), loss, flops, held, starts=32)
    assert score.runs == held.sum() and score.error < 4 * NOISE and score.inside >= 0.6 * score.runs
    assert abs(score.worst) >= score.error
    budgets = np.where(np.arange(len(N)) % 3 == 0, np.nan, np.repeat([1.0, 2.0, 3.0], 14))
    assert set(budgets[engine.largest(flops, 1, budgets)]) == {3.0}
