"""From budgets and shapes to runs, without data or training."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.core.param import count
from lm.inspect.cost import training_flops
from lm.zoo.registry import knobs
from scaling.cells import Cell, Plan, default, grid, read_plan, write_plan
from scaling.trunks import flops_of, groups_of, trunks_of, warnings

LENGTH, CORPUS = 16, 100_000


def config_of(**sweep):
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", head_dim=8, vocab=384, context=LENGTH)
    config.data.length, config.data.batch_size = LENGTH, 4
    config.sweep.update({"budgets": (1e9, 3e9), "shapes": ((8, 1), (16, 1), (24, 2)), **sweep})
    return config


@functools.cache
def row_flops(d_model):
    (model,) = (t.size.model for t in planned(config_of()) if t.cell.d_model == d_model)
    return training_flops(model, LENGTH)


def planned(config):
    return trunks_of(config, grid(config, (LENGTH, 0)), (LENGTH, 0), CORPUS)


@settings(max_examples=10)
@given(
    budgets=st.lists(st.floats(1e8, 1e13), min_size=2, max_size=4, unique=True).map(tuple),
    cooldown=st.floats(0.01, 0.99),
    batch_size=st.integers(1, 64),
)
def test_every_cell_is_within_a_step_of_its_budget(budgets, cooldown, batch_size):
    config = config_of(budgets=budgets)
    config.schedule.cooldown_fraction, config.data.batch_size = cooldown, batch_size
    for trunk in planned(config):
        step = batch_size * row_flops(trunk.config.model.d_model)
        assert trunk.size.params == count(trunk.size.model.spec())
        assert [p.cell.budget for p in trunk.points] == sorted(budgets)
        assert [p.branch for p in trunk.points] == sorted(p.branch for p in trunk.points)
        for point in trunk.points:
            assert abs(point.flops - point.cell.budget) <= step / 2
            assert point.flops == point.steps * step
            assert point.tokens == point.cell.tokens == point.steps * batch_size * LENGTH
            assert point.tokens == round(point.epochs * CORPUS)
            assert 0 <= point.branch <= point.steps
        assert max(p.flops for p in trunk.points) <= flops_of(trunk.points) <= sum(p.flops for p in trunk.points)


@given(cooldown=st.floats(0.05, 0.95), warmup=st.floats(0, 2))
@settings(max_examples=5)
def test_cells_share_the_learning_rates_of_their_trunk(cooldown, warmup):
    config = config_of(warmup=warmup)
    config.schedule.cooldown_fraction = cooldown
    trunk = planned(config)[0]
    small, large = trunk.points
    rates = trunk.rates(small)
    shared, cooling = rates[: small.branch], rates[small.branch :]
    np.testing.assert_array_equal(shared, trunk.rates(large)[: small.branch])
    assert (np.diff(cooling) < 0).all() or trunk.config.schedule.warmup > small.branch
    assert rates[-1] > 0 and rates.max() <= trunk.config.optimizer.learning_rate


def test_learning_rate_and_warm_up_follow_the_size():
    trunks = planned(config_of(seeds=(0, 7)))
    assert [((t.cell.d_model, t.cell.layers), t.cell.seed) for t in trunks] == [
        (s, n) for s in ((8, 1), (16, 1), (24, 2)) for n in (0, 7)
    ]
    for t in trunks:
        assert t.config.optimizer.learning_rate == pytest.approx(0.128 / t.cell.d_model)
        assert t.config.schedule.warmup == -(-t.size.params // (4 * LENGTH))  # a token for each parameter
        assert t.config.model.heads == t.cell.d_model // 8


def test_a_tied_embedding_counts_once():
    untied = config_of()
    untied.model.tied = False
    for a, b in zip(planned(config_of()), planned(untied), strict=True):
        assert b.size.params - a.size.params == 384 * a.cell.d_model
        assert a.points[0].flops == pytest.approx(b.points[0].flops, rel=0.01)


def test_warnings_name_what_would_bend_the_fit():
    def warnings_of(**sweep):
        return " ".join(warnings(planned(config_of(**sweep))))

    assert warnings_of(budgets=(3e9, 4e9), warmup=0.1) == ""
    assert "reads the corpus 81" in warnings_of(budgets=(3e9, 2e11), warmup=0.1)
    assert "span a factor of" in warnings_of(shapes=((8, 1), (16, 1), (128, 2)), warmup=0.0)
    assert "off the budget" in warnings_of(budgets=(2e7, 3e7))
    assert "warms up for" in warnings_of(warmup=10.0)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"budgets": ()}, "budgets is empty"),
        ({"shapes": ()}, "shapes is empty"),
        ({"seeds": ()}, "seeds is empty"),
        ({"batch_sizes": (4, 0)}, "whole numbers of rows"),
        ({"budgets": (1e9, -1.0)}, "positive FLOPs"),
        ({"budgets": (1e9, 1e9)}, "twice"),
        ({"budgets": (10.0, 1e9)}, "less than one step of d_model=8"),
        ({"lr_factors": (1, "a")}, "lr_factors holds 'a', which is no number"),
        ({"ratios": (5,)}, "the least and the most"),
        ({"ratios": (0, 1e-9)}, "leaves no cell of the grid"),
        ({"lr_factors": (1, 0)}, "lr_factors must be positive"),
        ({"shapes": ((8, 1), (16, 1), (20, 1))}, "multiple of config.model.head_dim=8"),
        ({"shapes": ((8, 1), (16, 1), 24)}, "each is (d_model, layers)"),
        ({"shapes": ((8, 1), (16, 1), (24, 0))}, "layers=0 must be at least 1"),
        ({"lr": 0.0}, "lr and lr_factors must be positive"),
    ],
)
def test_impossible_grids_are_one_line(sweep, message):
    config = config_of()
    with config.unlocked(), config.sweep.ignore_type():
        config.sweep.update(sweep)
    with pytest.raises(UserError) as raised:
        planned(config)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_sweep_is_of_whole_models():
    config = config_of()
    config.transforms = ({"type": "LoRA"},)
    with pytest.raises(UserError, match=r"^config\.transforms: a sweep compares models that train as a whole"):
        planned(config)


def test_a_shape_is_not_given_twice():
    config = config_of()
    config.model.layers = 3
    with pytest.raises(UserError, match=r"layers comes from config\.sweep\.shapes"):
        planned(config)


def test_a_grid_compares_rates_and_batch_sizes():
    config = config_of(budgets=(1e9,), shapes=((8, 1),), lr_factors=(0.5, 1, 2), batch_sizes=(2, 4), seeds=(0, 1))
    trunks = planned(config)
    assert len({t.points[0].cell.id for t in trunks}) == len(trunks) == 12
    groups = groups_of(trunks)
    assert [len(group) for group in groups] == [6, 6]  # one program for each batch size
    for group in groups:
        assert {round(t.cell.learning_rate, 6) for t in group} == {0.008, 0.016, 0.032}
        assert {t.config.data.batch_size for t in group} == {group[0].cell.batch_size}


def test_plans_are_read_as_they_were_written(tmp_path):
    config = config_of()
    plan = Plan(config, grid(config, (LENGTH, 0)), {"loss": 3.5})
    write_plan(tmp_path / "plan.json", plan)
    again = read_plan(tmp_path / "plan.json")
    assert again.cells == plan.cells and again.expected == plan.expected
    assert again.config.to_dict() == config.to_dict()


def test_cells_off_the_grid_share_trunks_too():
    cell = Cell(8, 1, 6400, None, 0.01, 4, 0, 0.99, 0.1)
    shared, other = (dataclasses.replace(cell, **knobs) for knobs in ({"tokens": 12_810}, {"b2": 0.95}))
    both, alone = trunks_of(config_of(), [cell, other, shared], (LENGTH, 0), CORPUS)
    assert [p.cell for p in both.points] == [cell, shared] and [p.cell for p in alone.points] == [other]
    assert [p.steps for p in both.points] == [100, 200]
    assert (both.config.optimizer.b2, alone.config.optimizer.b2) == (0.99, 0.95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens is 0, not a whole number from 1 on"),
        ({"lr": 0.1}, "'lr' is no value of a cell"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
    ],
)
def test_wrong_cells_are_one_line(tmp_path, change, message):
    config = config_of()
    write_plan(tmp_path / "plan.json", Plan(config, grid(config, (LENGTH, 0))))
    saved = json.loads((tmp_path / "plan.json").read_text())
    saved["cells"][1] |= change
    (tmp_path / "plan.json").write_text(json.dumps(saved))
    with pytest.raises(UserError) as raised:
        read_plan(tmp_path / "plan.json")
    assert message in str(raised.value) and "cell 2" in str(raised.value) and "\n" not in str(raised.value)
