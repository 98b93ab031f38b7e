"""The sweeps of experiments/: that each has the runs that it promises, without training."""

import pytest

from experiments import isoflop, isoflop_pairs
from scaling.cells import grid
from scaling.trunks import MOST_EPOCHS, trunks_of

LENGTHS, CORPUS = (128, 0), 40_000_000


def test_make_sweep_has_sizes_on_both_sides_of_each_minimum():
    config = isoflop.get_config()
    cells = grid(config, LENGTHS)
    for budget in config.sweep.budgets:
        assert len([c for c in cells if c.budget == budget]) >= 5
    points = [p for trunk in trunks_of(config, cells, LENGTHS, CORPUS) for p in trunk.points]
    assert max(p.epochs for p in points) < 1 < MOST_EPOCHS, "no text is read twice"


def test_the_other_parts_are_of_the_same_grid():
    ours = {(c.d_model, c.layers) for c in grid(isoflop.get_config(), LENGTHS)}
    tune, seeds = (grid(isoflop.get_config(part), LENGTHS) for part in ("tune", "seeds"))
    assert {(c.d_model, c.layers) for c in (*tune, *seeds)} <= ours
    assert max(c.budget for c in tune) < min(isoflop.get_config().sweep.budgets)
    assert 0 not in {c.seed for c in seeds}


@pytest.mark.parametrize("one, other", [("dense", "switch"), ("causal", "ul2")])
def test_pairs_have_equal_flops_and_shapes(one, other):
    pair = [grid(isoflop_pairs.get_config(member), LENGTHS) for member in (one, other)]
    shapes = [[(c.d_model, c.layers, c.budget) for c in cells] for cells in pair]
    assert sorted(shapes[0]) == sorted(shapes[1])
    for a, b in zip(*map(sorted, shapes), strict=True):
        assert a == b
