"""From budgets and shapes to runs, without data or training."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.core.param import count
from lm.inspect.cost import training_flops
from lm.zoo.registry import knobs
from scaling.plan import default, plan, warnings

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
    (model,) = (t.model for t in planned(config_of()) if t.shape[0] == d_model)
    return training_flops(model, LENGTH)


def planned(config):
    return plan(config, (LENGTH, 0), CORPUS)


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
        assert trunk.params == count(trunk.model.spec())
        assert [c.budget for c in trunk.cells] == sorted(budgets)
        assert [c.branch for c in trunk.cells] == sorted(c.branch for c in trunk.cells)
        for cell in trunk.cells:
            assert abs(cell.flops - cell.budget) <= step / 2
            assert cell.flops == cell.steps * step
            assert cell.tokens == cell.steps * batch_size * LENGTH == round(cell.epochs * CORPUS)
            assert 0 <= cell.branch <= cell.steps


@given(cooldown=st.floats(0.05, 0.95), warmup=st.floats(0, 2))
@settings(max_examples=5)
def test_cells_share_the_learning_rates_of_their_trunk(cooldown, warmup):
    config = config_of(warmup=warmup)
    config.schedule.cooldown_fraction = cooldown
    trunk = planned(config)[0]
    small, large = trunk.cells
    rates = trunk.learning_rates(small)
    shared, cooling = rates[: small.branch], rates[small.branch :]
    np.testing.assert_array_equal(shared, trunk.learning_rates(large)[: small.branch])
    assert (np.diff(cooling) < 0).all() or trunk.config.schedule.warmup > small.branch
    assert rates[-1] > 0 and rates.max() <= trunk.config.optimizer.learning_rate


def test_learning_rate_and_warm_up_follow_the_size():
    trunks = planned(config_of(seeds=(0, 7)))
    assert [(t.shape, t.config.seed) for t in trunks] == [(s, n) for s in ((8, 1), (16, 1), (24, 2)) for n in (0, 7)]
    for t in trunks:
        assert t.config.optimizer.learning_rate == pytest.approx(0.128 / t.shape[0])
        assert t.config.schedule.warmup == -(-t.params // (4 * LENGTH))  # a token for each parameter
        assert t.config.model.heads == t.shape[0] // 8


def test_a_tied_embedding_counts_once():
    untied = config_of()
    untied.model.tied = False
    for a, b in zip(planned(config_of()), planned(untied), strict=True):
        assert b.params - a.params == 384 * a.shape[0]
        assert a.cells[0].flops == pytest.approx(b.cells[0].flops, rel=0.01)


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
        ({"budgets": (1e9,)}, "one budget"),
        ({"budgets": (1e9, -1.0)}, "positive FLOPs"),
        ({"budgets": (1e9, 1e9)}, "twice"),
        ({"budgets": (10.0, 1e9)}, "less than one step of d_model=8"),
        ({"shapes": ((8, 1),)}, "fewer than three"),
        ({"shapes": ((8, 1), (16, 1), (20, 1))}, "multiple of config.model.head_dim=8"),
        ({"shapes": ((8, 1), (16, 1), 24)}, "each is (d_model, layers)"),
        ({"shapes": ((8, 1), (16, 1), (24, 0))}, "layers=0 must be at least 1"),
        ({"lr": 0.0}, "lr must be positive"),
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
