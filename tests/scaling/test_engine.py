"""The parametric fit: recovers known laws, and the published replication."""

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from scaling import engine
from scaling.laws import ANY, HOFFMANN, HOFFMANN_PRINTED, KAPLAN, POSITIVE, Chinchilla, Domain, Kaplan, Law
from scaling.records import read_runs

DATA = Path(__file__).parents[3] / "shared" / "data" / "scaling"


@pytest.fixture(scope="module")
def chinchilla():
    path = DATA / "epoch_chinchilla.csv"
    if not path.exists():
        pytest.skip("the points of Chinchilla's Figure 4 are not part of the project")
    runs = read_runs(path, where=["in_fit_240"])
    return (runs["params"], runs["tokens"]), runs["loss"]


def grid(n_low, n_high, d_low, d_high):
    N, D = np.meshgrid(np.geomspace(n_low, n_high, 6), np.geomspace(d_low, d_high, 7))
    return N.ravel(), D.ravel()


@given(st.floats(-10, 10), st.floats(1e-6, 1))
def test_huber_is_squared_inside_absolute_outside_and_smooth_between(r, delta):
    expected = 0.5 * r**2 if abs(r) <= delta else delta * (abs(r) - 0.5 * delta)
    assert engine.huber(r, delta) == pytest.approx(expected)
    assert engine.huber(delta * (1 + 1e-9), delta) == pytest.approx(0.5 * delta**2, rel=1e-8)


@pytest.mark.parametrize(
    ("law", "bounds"),
    [
        (Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37), (1e8, 1e10, 1e9, 1e12)),  # nats per token, as published
        (Chinchilla(0.6, 12.0, 90.0, 0.22, 0.41), (1e4, 1e6, 1e6, 1e8)),  # bytes, and a laptop
        (Chinchilla(1.2, 3e5, 60.0, 0.75, 0.2), (1e8, 1e10, 1e9, 1e12)),  # alpha and beta far apart
    ],
)
@pytest.mark.parametrize("delta", [1e-1, 1e-3, 1e-6])
def test_a_law_without_noise_is_recovered(law, bounds, delta):
    N, D = grid(*bounds)
    found = engine.fit(Chinchilla, (N, D), law.predict(N, D), delta=delta, starts=64)
    for field in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found.law, field) == pytest.approx(getattr(law, field), rel=1e-4), field
    assert found.reached >= 48


@pytest.mark.parametrize("law", [KAPLAN, Kaplan(Nc=3e6, Dc=2e7, aN=0.3, aD=0.2)])
def test_another_law_without_noise_is_recovered(law):
    N, D = grid(1e6, 1e9, 1e8, 1e11)
    found = engine.fit(Kaplan, (N, D), law.predict(N, D), starts=32)
    assert astuple(found.law) == pytest.approx(astuple(law), rel=1e-4)
    assert found.reached >= 24


def test_a_law_of_ones_own():
    """Of one input, and of no frontier."""

    @dataclass(frozen=True)
    class Data(Law):
        E: float
        Dc: float
        aD: float

        formula = "L(D) = E + (Dc / D)^aD"
        reads = ("tokens",)
        bounds = {"E": POSITIVE, "Dc": Domain(positive=True, low=1e7, high=1e10), "aD": ANY}  # noqa: RUF012
        linear = ("E",)

        def predict(self, D):
            return self.E + (self.Dc / D) ** self.aD

    D = np.geomspace(1e8, 1e11, 9)
    law = Data(1.2, 3e8, 0.4)
    found = engine.fit(Data, (D,), law.predict(D), starts=16)
    assert astuple(found.law) == pytest.approx(astuple(law), rel=1e-4)
    assert engine.bootstrap((D,), law.predict(D), found, resamples=10).aD.shape == (10,)
    with pytest.raises(UserError, match="3 runs cannot determine E, Dc and aD; this law needs 4"):
        engine.fit(Data, (D[:3],), law.predict(D[:3]))


def test_units_change_nothing():
    """Millions of parameters, billions of tokens: the same exponents, and the same losses."""
    law = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = law.predict(N, D) * np.exp(0.005 * np.random.default_rng(0).standard_normal(len(N)))
    plain, scaled = (engine.fit(Chinchilla, (n, d), loss, starts=32) for n, d in ((N, D), (N / 1e6, D / 1e9)))
    assert scaled.objective == pytest.approx(plain.objective, rel=1e-9)
    assert scaled.law.exponents[0] == pytest.approx(plain.law.exponents[0], rel=1e-5)
    bits = engine.fit(Chinchilla, (N, D), loss / np.log(2), starts=32)
    assert bits.objective == pytest.approx(plain.objective, rel=1e-9)


def test_least_squares_is_what_numpy_finds_for_a_law_of_logarithms():
    """log L = log Nc - aN log N, by least squares."""

    @dataclass(frozen=True)
    class Power(Law):
        k: float
        a: float

        formula = "L(N) = k / N^a"
        reads = ("params",)
        bounds = {"k": POSITIVE, "a": ANY}  # noqa: RUF012
        linear = ("k",)
        delta = np.inf

        def predict(self, N):
            return self.k / N**self.a

    N = np.geomspace(1e6, 1e9, 12)
    loss = 50 * N**-0.2 * np.exp(0.1 * np.random.default_rng(0).standard_normal(12))
    found = engine.fit(Power, (N,), loss, starts=16)
    slope, intercept = np.polyfit(np.log(N), np.log(loss), 1)
    assert (found.law.a, np.log(found.law.k)) == pytest.approx((-slope, intercept), rel=1e-6)
    assert found.reached == 16


def test_constants_may_be_fixed_and_tied():
    law = Chinchilla(1.7, 400.0, 2000.0, 0.35, 0.35)
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = law.predict(N, D)
    found = engine.fit(Chinchilla, (N, D), loss, starts=16, fixed={"E": 1.7}, tied={"beta": "alpha"})
    assert astuple(found.law) == pytest.approx(astuple(law), rel=1e-6) and found.law.alpha == found.law.beta
    drawn = engine.bootstrap((N, D), loss, found, resamples=10)
    assert pytest.approx(np.full(10, 1.7)) == drawn.E and drawn.beta == pytest.approx(drawn.alpha)
    all_but_one = dict(list(law.constants().items())[1:])
    assert pytest.approx(1.7) == engine.fit(Chinchilla, (N, D), loss, starts=4, fixed=all_but_one).law.E
    with pytest.raises(UserError, match="no constant 'alhpa'"):
        engine.fit(Chinchilla, (N, D), loss, fixed={"alhpa": 1.0})
    with pytest.raises(UserError, match="fixed or tied already"):
        engine.fit(Chinchilla, (N, D), loss, fixed={"alpha": 0.3}, tied={"beta": "alpha"})


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(0.1, 5))
def test_a_point_is_its_law(point, E):
    space = engine.Space(Chinchilla, fixed=(("E", E),))
    law = space.build(np.array(point))
    assert float(law.E) == E and space.point(law) == pytest.approx(point, abs=1e-9)


def test_values_that_are_no_runs():
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = HOFFMANN.predict(N, D)
    for bad in (np.nan, -1.0, 0.0):
        with pytest.raises(UserError, match="1 of 42 runs have a loss that is no positive number"):
            engine.fit(Chinchilla, (N, D), np.where(np.arange(42) == 3, bad, loss))
    with pytest.raises(UserError, match="a params that is no number"):
        engine.fit(Chinchilla, (np.where(np.arange(42) == 3, np.nan, N), D), loss)


def test_runs_that_leave_constants_free():
    """Three sizes, of which each has lengths of its own: refused for what the fit shows, not for what the runs are."""
    D = np.geomspace(1e9, 1e12, 12)
    N = np.where(np.arange(12) % 2, 1e8, 2e8) * np.where(np.arange(12) == 0, 1 + 1e-9, 1)
    with pytest.raises(UserError, match=r"these runs do not determine .*; add runs that differ in more of params"):
        engine.fit(Chinchilla, (N, D), HOFFMANN.predict(N, D), starts=16)
    assert engine.fit(Chinchilla, (N, D), HOFFMANN.predict(N, D), starts=16, force=True).reached > 0


def test_a_tenth_of_wild_runs_hardly_moves_the_fit():
    law = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = law.predict(N, D)
    loss[::10] *= 1.5
    assert engine.fit(Chinchilla, (N, D), loss).law.exponents[0] == pytest.approx(law.exponents[0], abs=1e-3)


def test_intervals_cover_the_truth_and_widen_with_noise():
    law = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    spread = []
    for noise in (0.002, 0.01):
        loss = law.predict(N, D) * np.exp(noise * np.random.default_rng(0).standard_normal(len(N)))
        drawn = engine.bootstrap((N, D), loss, engine.fit(Chinchilla, (N, D), loss, starts=16), resamples=100)
        low, high = np.percentile(drawn.exponents[0], [0.5, 99.5])
        assert low < law.exponents[0] < high
        spread.append(high - low)
    assert spread[1] > 2 * spread[0]


def test_rows_of_one_run_are_drawn_together():
    """A copy of every row makes no interval narrower when the copies name their run, and does when they do
    not."""
    law = Chinchilla(1.7, 400.0, 2000.0, 0.34, 0.37)
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = law.predict(N, D) * np.exp(0.005 * np.random.default_rng(0).standard_normal(len(N)))
    N2, D2, loss2, runs = (np.tile(v, 4) for v in (N, D, loss, np.arange(len(N))))
    fitted = engine.fit(Chinchilla, (N2, D2), loss2, starts=16)
    sd = [
        float(np.std(engine.bootstrap((n, d), y, fitted, groups=g, resamples=60).exponents[0]))
        for n, d, y, g in ((N, D, loss, None), (N2, D2, loss2, runs), (N2, D2, loss2, None))
    ]
    assert sd[1] == pytest.approx(sd[0], rel=1e-3)
    assert sd[2] < 0.7 * sd[0]


def test_runs_that_cannot_determine_the_constants():
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    loss = HOFFMANN.predict(N, D)
    with pytest.raises(UserError, match="5 runs cannot determine"):
        engine.fit(Chinchilla, (N[:5], D[:5]), loss[:5])
    with pytest.raises(UserError, match="1 distinct tokens"):
        engine.fit(Chinchilla, (N[:6], D[:6]), loss[:6])


@pytest.mark.parametrize(
    ("slope", "ratio", "jitter", "named"),
    [
        (1.0, 20.0, 0.0, r"one ratio D/N = 20\)"),
        (1.0, 20.0, 0.05, r"within a factor of 1\.\d+ of D ~ N\^1\.0"),
        (0.5, 1e6, 0.0, r"D ~ N\^0\.50;"),
        (-1.0, 1e20, 0.0, "one compute budget"),
    ],
)
def test_n_and_d_that_cannot_be_told_apart(slope, ratio, jitter, named):
    N = np.geomspace(1e7, 1e10, 12)
    D = ratio * N**slope * (1 + jitter * np.random.default_rng(0).uniform(-1, 1, 12))
    with pytest.raises(UserError, match=f"N and D cannot be told apart: .*{named}"):
        engine.fit(Chinchilla, (N, D), HOFFMANN.predict(N, D))


def test_the_same_points_over_and_over_determine_nothing():
    N, D = grid(1e8, 1e10, 1e9, 1e12)
    N, D = (np.tile(v[[0, 8, 19, 30, 41]], 3) for v in (N, D))
    with pytest.raises(UserError, match="5 distinct pairs of params and tokens"):
        engine.fit(Chinchilla, (N, D), HOFFMANN.predict(N, D))


def test_no_interval_where_nothing_is_free():
    """Runs without any of which five constants are not determined: every draw that has them is the same one."""
    N, D = (v[[0, 3, 8, 19, 30, 41, 12]] for v in grid(1e8, 1e10, 1e9, 1e12))
    loss = HOFFMANN.predict(N, D) * (1 + 0.01 * np.sin(np.arange(7)))
    fitted = engine.fit(Chinchilla, (N[:6], D[:6]), loss[:6], starts=16)
    assert engine.bootstrap((N[:6], D[:6]), loss[:6], fitted) is None
    drawn = engine.bootstrap((N, D), loss, fitted, resamples=10)
    assert drawn is not None and len(np.unique(drawn.alpha)) > 1
    assert engine.bootstrap((N, D), loss, fitted, groups=np.zeros(7)) is None


def test_published_constants_score_as_the_replication_found(chinchilla):
    assert engine.objective(HOFFMANN, *chinchilla) == pytest.approx(1.23116e-3, abs=5e-9)
    assert engine.objective(HOFFMANN_PRINTED, *chinchilla) == pytest.approx(4.12101e-3, abs=5e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_replication_of_chinchilla(chinchilla, seed):
    """Besiroglu et al. 2024: the global minimum of Hoffmann's own objective."""
    found = engine.fit(Chinchilla, *chinchilla, seed=seed)
    assert found.objective <= 1.018275e-3
    assert found.reached > 100
    assert pytest.approx(1.8172, abs=0.002) == found.law.E
    assert found.law.alpha == pytest.approx(0.3473, abs=0.001)
    assert found.law.beta == pytest.approx(0.3672, abs=0.001)
    assert found.law.exponents[0] == pytest.approx(0.5139, abs=0.001)


def test_the_replication_as_printed_is_the_absolute_error_fit(chinchilla):
    found = engine.fit(Chinchilla, *chinchilla, delta=1e-6)
    assert found.law.alpha == pytest.approx(0.3478, abs=0.001)
    assert found.law.beta == pytest.approx(0.3658, abs=0.001)
    assert pytest.approx(481.9, rel=0.01) == found.law.A
    assert pytest.approx(2085, rel=0.01) == found.law.B
    assert found.objective <= 1.129377e-6


def test_the_replication_s_intervals(chinchilla):
    drawn = engine.bootstrap(*chinchilla, engine.fit(Chinchilla, *chinchilla), resamples=200)
    assert np.percentile(drawn.exponents[0], [2.5, 97.5]) == pytest.approx([0.481, 0.557], abs=0.012)
    assert np.percentile(drawn.alpha, [2.5, 97.5]) == pytest.approx([0.317, 0.371], abs=0.012)
