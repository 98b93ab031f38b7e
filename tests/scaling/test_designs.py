"""Designs under a budget, and what is known after them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.design.grids import Grid, curves, isoflop
from scaling.design.optimal import Criterion, candidates, optimal
from scaling.design.precision import Noise, Question, deviation, efficiency
from scaling.design.space import Design, Space, without_copies
from scaling.ladder import Rung
from scaling.laws import EPOCH, KAPLAN, Chinchilla

NOISE = Noise(0.005)


def space(cooldown=0.2, low=1e6, high=1e10, number=14) -> Space:
    """Sizes whose tokens cost a tenth more than 6 N."""
    sizes = tuple(Rung(i, 2, int(n), 0, 6.6 * n) for i, n in enumerate(np.geomspace(low, high, number)))
    return Space(sizes, cooldown, np.full(number, 1e5), np.full(number, 1e14))


def test_a_trunk_is_paid_for_once():
    s = space()
    design = Design.of([0, 0, 1], [1e8, 4e8, 1e8])
    one, four, other = s.flops(design)
    assert s.cost(design) == pytest.approx(0.2 * (one + four + other) + 0.8 * (four + other))
    assert space(cooldown=1.0).cost(design) == pytest.approx(one + four + other)
    more = Design.of([0, 0, 2], [2e8, 8e8, 1e8])
    for i, added in enumerate(s.added(design, more)):
        assert s.cost(design + more[[i]]) == pytest.approx(s.cost(design) + added)


@settings(max_examples=8, deadline=None)
@given(
    flops=st.floats(1e17, 1e22),
    budgets=st.integers(2, 6),
    sizes=st.integers(3, 7),
    ratio=st.floats(1.5, 4),
    cooldown=st.sampled_from([0.1, 0.2, 1.0]),
)
def test_no_design_costs_more_than_its_budget(flops, budgets, sizes, ratio, cooldown):
    s, grid = space(cooldown), Grid(budgets, sizes, ratio)
    question = Question("loss", 10 * flops)
    grids = [isoflop(s, EPOCH, grid, flops), curves(s, EPOCH, grid, flops)]
    best = optimal(s, [EPOCH], NOISE, question, flops, among=candidates(s, EPOCH, flops, 8), starts=grids, runs=12)
    for design in (*grids, best):
        assert 0 < s.cost(design) <= flops
        assert s.possible(design).all()
    assert s.cost(grids[0]) > 0.5 * flops  # and uses it
    assert len(without_copies([best])) == len(best)


@pytest.mark.parametrize("law", [EPOCH, KAPLAN], ids=["chinchilla", "kaplan"])
@pytest.mark.parametrize("decision", ["a", "N_opt", "loss", "all"])
def test_the_optimal_design_is_no_worse_than_those_it_starts_from(decision, law):
    s, flops = space(), 1e20
    question = Question(decision, 1e22)
    grids = [isoflop(s, law, Grid(), flops), curves(s, law, Grid(), flops)]
    best = optimal(s, [law], NOISE, question, flops, among=candidates(s, law, flops, 16), starts=grids, runs=24)
    pool = without_copies([best, *grids])
    criterion = Criterion([law], NOISE, question, s, pool)
    place = {key: i for i, key in enumerate(zip(pool.sizes, pool.tokens, strict=True))}
    values = [criterion.value([place[k] for k in zip(d.sizes, d.tokens, strict=True)]) for d in (best, *grids)]
    assert values[0] <= min(values[1:])
    if decision != "all":
        assert values[0] < min(values[1:]) - 0.1  # a tenth narrower at least


def test_gains_are_what_the_criterion_loses():
    s = space()
    pool = candidates(s, EPOCH, 1e20, 16)
    for decision in ("N_opt", "all"):
        criterion = Criterion([EPOCH, Chinchilla(1.7, 400, 1500, 0.33, 0.35)], NOISE, Question(decision, 1e22), s, pool)
        chosen = [3, 4, 30, 60]
        gains = criterion.gains(chosen)
        for i in (0, 5, 31, 90):
            assert criterion.value(chosen) - criterion.value([*chosen, i]) == pytest.approx(gains[i], abs=1e-9)


def test_efficiency_of_hubers_loss():
    assert efficiency(math.inf) == 1
    assert efficiency(1.345) == pytest.approx(0.95, abs=1e-3)  # the usual choice
    assert efficiency(1e-6) == pytest.approx(2 / math.pi, rel=1e-3)


def test_without_two_lengths_nothing_is_determined():
    s = space()
    N, D = s.inputs(Design.of([1, 2, 3], [1e9, 1e9, 1e9]))
    assert deviation(EPOCH, N, D, [1, 2, 3], NOISE, Question("a", 1e22)) == math.inf


def test_too_little_compute_pays_for_no_grid():
    s = space()
    assert isoflop(s, EPOCH, Grid(), 1e3) is None
    assert curves(s, EPOCH, Grid(), 1e3) is None
