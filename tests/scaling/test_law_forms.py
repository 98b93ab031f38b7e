"""Every law: that it is traced as it is computed, that its starts suit any scale, that runs without noise give it back;
and what the papers say of single ones."""

from dataclasses import astuple, fields, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lm.core.errors import UserError
from scaling import engine, laws
from scaling.laws import EPOCH, LAWS, PUBLISHED, SARDANA, Chinchilla, cheapest, critical_steps, quality
from scaling.laws import __main__ as listing

# What each column is like, in runs of billions of parameters on tokens and in a laptop's on bytes.
COLUMNS = {
    "params": ((1e8, 1e10), (1e4, 1e6)),
    "total_params": ((1e9, 1e11), (1e5, 1e7)),
    "tokens": ((1e9, 1e12), (1e6, 1e8)),
    "unique_tokens": ((1e9, 1e11), (1e6, 1e7)),
    "flops": ((1e18, 1e22), (1e10, 1e14)),
    "steps": ((1e3, 1e6), (1e2, 1e4)),
    "batch_tokens": ((1e5, 1e7), (1e2, 1e4)),
    "experts": ((1, 512), (1, 64)),
    "granularity": ((1, 16), (1, 16)),
    "sparsity": ((0.0, 0.95), (0.0, 0.9)),
    "variant": ((0, 1), (0, 1)),
    "loss": ((1.8, 4.0), (0.5, 1.2)),
}


TYPICAL = {  # of what is predicted
    "loss": (2.5, 0.7),
    "error": (0.6, 0.6),
    "learning_rate": (3e-4, 1e-2),
    "batch_tokens": (1e6, 1e3),
    "critical_batch": (1e6, 1e3),
    "params": (1e9, 1e5),
    "tokens": (2e10, 1e7),
}


def inputs_of(law, scale, count=40, seed=0):
    rng = np.random.default_rng(seed)
    drawn = []
    for column in law.reads:
        low, high = COLUMNS[column][scale]
        if column in ("sparsity", "loss"):
            drawn.append(rng.uniform(low, high, count))
        elif column == "variant":
            drawn.append(rng.integers(0, 2, count).astype(float))
        else:
            drawn.append(np.exp(rng.uniform(np.log(low), np.log(high), count)))
    return drawn


@pytest.mark.parametrize("name", sorted(LAWS))
def test_a_law_says_what_it_needs(name):
    law = LAWS[name]
    names = {f.name for f in fields(law)}
    assert set(law.bounds) == names and set(law.linear) <= names
    assert set(law.reads) <= set(COLUMNS) and law.formula and law.__doc__
    assert law.residual in ("log", "linear") and law.delta > 0


@pytest.mark.parametrize("name", sorted(LAWS))
@pytest.mark.parametrize("scale", [0, 1])
def test_starts_are_within_reach_of_the_runs_whatever_their_scale(name, scale):
    law = LAWS[name]
    inputs = inputs_of(law, scale)
    target = TYPICAL[law.target][scale] * np.exp(np.random.default_rng(1).uniform(-0.2, 0.2, len(inputs[0])))
    found = law.starts(np.random.default_rng(0), 64, target, *inputs)
    assert all(np.shape(v) == (64,) and np.all(np.isfinite(v)) for v in astuple(found))
    of_all = replace(found, **{k: v[:, None] for k, v in found.constants().items()}).predict(*inputs)
    ratio = np.median(of_all, axis=1) / np.median(target)
    assert np.mean((ratio > 1 / 30) & (ratio < 30)) > 0.6  # the others are what many starts are for


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_law_is_traced_as_it_is_computed(name):
    law = PUBLISHED[name]
    inputs = inputs_of(type(law), 0)
    with jax.enable_x64(True):
        traced = np.asarray(jax.jit(law.predict)(*inputs))
        slopes = jax.jit(jax.jacfwd(lambda c: replace(law, **c).predict(*inputs)))(law.constants())
    assert traced == pytest.approx(law.predict(*inputs), rel=1e-9)
    assert np.all(traced > 0)
    assert all(np.all(np.isfinite(v)) for v in jax.tree.leaves(slopes))


terms, exponents = st.floats(0.05, 1.0), st.floats(0.2, 0.6)
chinchillas = st.builds(  # each term is between 0.05 and 1 at 1e9 parameters and 2e10 tokens
    lambda E, a, b, alpha, beta: Chinchilla(E, a * 1e9**alpha, b * 2e10**beta, alpha, beta),
    *(st.floats(0.1, 3), terms, terms, exponents, exponents),
)


# ---------------------------------------------------------------------------------------------------------------------
# Inference


@given(chinchillas, st.floats(1e8, 1e11), st.floats(1e6, 1e14))
def test_the_cheapest_deployment_meets_the_first_order_condition(law, size, extra):
    loss = quality(law, size)
    n, d, flops = cheapest(law, loss, extra)
    assume(d > 1)  # no run is shorter than a token
    assert law.predict(n, d) == pytest.approx(loss, rel=1e-9)
    assert flops == pytest.approx(6 * n * d + 2 * n * extra, rel=1e-9)
    ratio = (law.alpha * law.A / n**law.alpha) / (law.beta * law.B / d**law.beta)
    assert ratio == pytest.approx(1 + extra / (3 * d), rel=1e-6)
    assert n <= size * (1 + 1e-6)  # what is used much had better be small


@given(chinchillas, st.floats(1e8, 1e11))
def test_without_inference_the_cheapest_is_on_the_frontier(law, size):
    n, d, _ = cheapest(law, quality(law, size), 0.0)
    assume(d > 1)  # no run is shorter than a token
    assert n == pytest.approx(size, rel=1e-6)
    assert d == pytest.approx(law.optimal(6 * n * d)[1], rel=1e-6)


def test_the_published_savings():
    """Sardana et al. 2024: a 7B's quality and 1e11 tokens; a 13B's and 2e12."""
    n, d, _ = cheapest(SARDANA, quality(SARDANA, 7e9), 1e11)
    assert n == pytest.approx(6.00e9, rel=1e-3)
    assert d / cheapest(SARDANA, quality(SARDANA, 7e9), 0.0).tokens == pytest.approx(1.176, abs=1e-3)
    small, large = (cheapest(SARDANA, quality(SARDANA, 13e9), tokens) for tokens in (2e12, 0.0))
    assert small.params == pytest.approx(6.97e9, rel=1e-3)
    assert small.tokens / large.tokens == pytest.approx(2.165, abs=1e-3)
    before = large.flops + 2 * large.params * 2e12
    assert 1 - small.flops / before == pytest.approx(0.1745, abs=1e-4)
    assert before - small.flops == pytest.approx(1.69e22, rel=2e-3)


def test_the_cheapest_of_resamples_and_of_other_laws():
    both = Chinchilla(*(np.array(v) for v in zip(astuple(EPOCH), astuple(SARDANA), strict=True)))
    found = cheapest(both, 2.2, 1e12)
    assert found.params == pytest.approx([cheapest(law, 2.2, 1e12).params for law in (EPOCH, SARDANA)])
    n, d, _ = cheapest(laws.KAPLAN, 2.5, 1e12)
    assert laws.KAPLAN.predict(n, d) == pytest.approx(2.5)
    with pytest.raises(UserError, match=r"no model reaches a loss of 1\.8 "):
        cheapest(EPOCH, 1.8, 1e12)


# ---------------------------------------------------------------------------------------------------------------------
# Single laws


def test_over_training_is_chinchilla_s_law_with_one_exponent():
    law = laws.GADRE_C4
    N, D = inputs_of(law, 0)
    assert law.chinchilla.predict(N, D) == pytest.approx(law.predict(N, D))
    C, M = 6 * N * D, D / N
    assert law.predict(N, D) == pytest.approx(law.E + (law.A * M**law.eta + law.B * M**-law.eta) * C**-law.eta)
    n, d = law.optimal(1e20)
    assert (
        d / n
        == pytest.approx((law.B / law.A) ** (1 / (2 * law.eta)))
        == pytest.approx(law.optimal(1e24)[1] / law.optimal(1e24)[0])
    )


def test_coupled_terms_have_chinchilla_s_frontier():
    law = laws.Coupled(E=1.5, A=900.0, B=4000.0, alpha=0.5, beta=0.6, k=0.4)
    assert replace(law, k=1.0).predict(1e9, 1e10) == pytest.approx(law.chinchilla.predict(1e9, 1e10))
    n, d = law.optimal(1e21)
    for factor in (0.9, 1.1):
        assert law.predict(n * factor, d / factor) > law.predict(n, d)


def test_data_that_are_not_repeated_are_worth_what_they_are():
    law = laws.MUENNIGHOFF
    base = Chinchilla(law.E, law.A, law.B, law.alpha, law.beta)
    n = law.size_for(1e10)
    assert base.optimal(6 * n * 1e10) == pytest.approx((n, 1e10))
    assert law.predict(n / 2, 1e10, 1e12) == pytest.approx(base.predict(n / 2, 1e10))  # more than enough of them
    epochs = np.array([1, 2, 4, 16, 64, 1000])
    losses = law.predict(n, 1e10 * epochs, 1e10)
    assert np.all(np.diff(losses) < 0)
    assert losses[2] == pytest.approx(base.predict(n, 4e10), rel=0.01)  # four epochs cost almost nothing
    assert losses[-1] == pytest.approx(base.predict(n, 1e10 * (1 + law.RD)))  # and no number of them is worth more


def test_published_losses_of_repeated_data():
    assert laws.MUENNIGHOFF.predict(6.34e9, 242e9, 25e9) == pytest.approx(2.22564409, abs=1e-8)
    assert laws.MUENNIGHOFF.predict(8.67e9, 178e9, 25e9) == pytest.approx(2.2269634, abs=1e-7)


def test_a_law_of_over_fitting_lets_the_loss_rise_again():
    law = laws.OverFitting(E=1.7, A=400.0, B=2000.0, alpha=0.34, beta=0.37, P=1e-3, rho=1.0, kappa=0.5)
    base = Chinchilla(*astuple(law)[:5])
    assert law.predict(1e9, 1e9, 1e9) == pytest.approx(base.predict(1e9, 1e9))
    losses = law.predict(1e9, 1e9 * np.array([1.0, 8.0, 5000.0]), 1e9)
    assert losses[1] < losses[0] < losses[2]


@given(st.floats(1.0, 4096.0))
def test_saturating_experts(experts):
    law = laws.CLARK_SBASE
    effective = laws.experts.saturating(experts, law.E_start, law.E_max)
    assert law.E_start * (1 - 1e-9) <= effective < min(law.E_max, experts + law.E_start)


def test_effective_parameters_of_routed_models():
    law = laws.CLARK_SBASE
    dense = law.dense_equivalent(1e9, 64.0)
    assert dense > 1e9 and law.predict(dense, 1.0) == pytest.approx(law.predict(1e9, 64.0))
    few, many = law.predict(law.cutoff, np.array([1.0, 512.0]))
    assert few == pytest.approx(many)
    assert law.predict(law.cutoff / 10, 512.0) < law.predict(law.cutoff / 10, 1.0)


@pytest.mark.parametrize(
    ("experts", "A", "alpha", "B", "beta"),
    [
        (1, 30.3640, 0.1817, 53.9838, 0.1965),
        (2, 27.7982, 0.1780, 66.8401, 0.2065),
        (4, 24.8462, 0.1731, 87.7022, 0.2192),
        (8, 21.8330, 0.1676, 119.9126, 0.2338),
        (16, 19.0159, 0.1617, 167.5073, 0.2494),
        (32, 16.5424, 0.1557, 234.6726, 0.2652),
    ],
)
def test_the_joint_law_of_each_number_of_experts(experts, A, alpha, B, beta):
    """Ludziejewski et al. 2025, table 4, from the rounded constants of table 3."""
    law = laws.LUDZIEJEWSKI.at(float(experts))
    assert pytest.approx((A, B), rel=3e-3) == (law.A, law.B)
    assert (law.alpha, law.beta) == pytest.approx((alpha, beta), abs=2e-4)
    assert law.predict(1e9, 1e10) == pytest.approx(laws.LUDZIEJEWSKI.predict(1e9, 1e10, float(experts)))


def test_finer_experts_are_better_and_one_granularity_is_chinchilla_s_law():
    losses = laws.KRAJEWSKI.predict(1e10, 1e11, np.array([1.0, 4.0, 16.0]))
    assert np.all(np.diff(losses) < 0)
    assert laws.KRAJEWSKI.at(4.0).predict(1e10, 1e11) == pytest.approx(losses[1])


def test_two_recipes_share_a_law():
    law = laws.TwoRecipes(E=1.7, A=400.0, B=2000.0, alpha=0.34, beta=0.37, rN=1.0, rD=1.4)
    assert law.predict(1e9, 1e10, 1) == pytest.approx(law.predict(1e9, 1.4e10, 0))
    for variant in (0, 1):
        assert law.at(variant).predict(1e9, 1e10) == pytest.approx(law.predict(1e9, 1e10, variant))


def test_batches():
    law = laws.BatchAware(E=1.7, A=400.0, B=2000.0, alpha=0.34, beta=0.37, critical=1e6)
    assert law.predict(1e9, 2e10, 1e6) == pytest.approx(Chinchilla(*astuple(law)[:5]).predict(1e9, 1e10))
    assert critical_steps(1000.0, 1e6, 1e6) == pytest.approx(500)
    assert laws.KAPLAN_BATCH.predict(3.0) == pytest.approx(2e8 / 3.0 ** (1 / 0.21))


def test_kaplan_s_laws_of_one_quantity_are_the_limits_of_those_of_two():
    """The same formula, fitted apart: their exponents of size agree, their scales do within a factor of two."""
    assert laws.KAPLAN_SIZE.predict(1e9) == pytest.approx(laws.KAPLAN.predict(1e9, np.inf), rel=0.03)
    assert laws.KAPLAN_STEPS.predict(1e9, np.inf) == pytest.approx(laws.KAPLAN_SIZE.predict(1e9), rel=0.03)
    # A petaflop/s-day, and its best size of 1.3e9.
    assert laws.KAPLAN_OPTIMAL_SIZE.predict(8.64e19) == pytest.approx(1.3e9)


def test_published_optima():
    assert laws.LLAMA3_TOKENS.predict(3.8e25) == pytest.approx(
        16.55e12, rel=0.15
    )  # as its text rounds them: 0.29, 0.53
    C = 1e20
    assert laws.DEEPSEEK_SIZE.predict(C) * laws.DEEPSEEK_TOKENS.predict(C) == pytest.approx(C, rel=1e-3)
    assert 2e-4 < laws.STEP_RATE.predict(1e9, 1e11) < 3e-3 and 5e5 < laws.STEP_BATCH.predict(1e11) < 3e6


def test_the_page_of_laws_names_them_all():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "choose-a-law.md").read_text(encoding="utf-8")
    assert not [name for name in LAWS if f"`{name}`" not in page]


# ---------------------------------------------------------------------------------------------------------------------
# Through the engine


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0, 1])
@pytest.mark.parametrize("name", sorted(LAWS))
def test_runs_without_noise_give_a_law_back(name, scale):
    """Whatever made them, at either scale, from starts that know nothing but the runs."""
    law = LAWS[name]
    inputs = inputs_of(law, scale, count=60)
    truth, target = truth_of(law, inputs, scale)
    found = engine.fit(law, inputs, target, starts=64, force=True)
    assert found.law.predict(*inputs) == pytest.approx(target, rel=1e-4), (truth, found)


def truth_of(law, inputs, scale):
    """The first of some drawn laws that predicts positive targets which vary."""
    drawn = law.starts(np.random.default_rng(5), 64, np.full(len(inputs[0]), TYPICAL[law.target][scale]), *inputs)
    for i in range(64):
        truth = law(**{name: float(values[i]) for name, values in drawn.constants().items()})
        target = truth.predict(*inputs)
        if np.all(target > 0) and 1.1 < target.max() / target.min() < 1e3:
            return truth, target
    raise AssertionError("no law like these runs")


def test_the_laws_as_a_command(capsys):
    listing.main(["scaling.laws"])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in LAWS)
    listing.main(["scaling.laws", "repeated"])
    shown = capsys.readouterr().out
    assert "unique_tokens" in shown and "RD 15.3878" in shown
    with pytest.raises(SystemExit):
        listing.main(["scaling.laws", "repeted"])
    assert "did you mean 'repeated'" in capsys.readouterr().err
