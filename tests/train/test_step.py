"""One step: accumulation, donation, precision, routers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.metrics import values
from lm.core.param import flatten
from lm.model.moe.top_k import TopK
from lm.objectives.token_loss import TokenLoss
from lm.train.optim.muon import Muon
from lm.train.optim.sgd import SGD
from lm.train.step import Trainer
from tests import toys
from tests.train import tiny

SWITCH = TopK(k=1)


def run(trainer: Trainer, hyper: dict, steps: int) -> tuple:
    """State and each step's metrics, on one batch over and over; the program is compiled once."""
    state = trainer.init(hyper)
    step, seen = trainer.jitted(state), []
    batch = jax.device_put(tiny.batch())
    for _ in range(steps):
        before = state
        state, metrics = step(state, batch)
        assert all(x.is_deleted() for x in jax.tree.leaves(before.params)), "the old state must be taken over"
        seen.append(metrics)
    assert step._cache_size() == 1
    assert int(state.step) == steps
    return state, seen


def loss_of(metrics: dict) -> float:
    return values(metrics)["loss"]


def test_microbatches_add_up_to_the_batch():
    """One step with 1, 2 and 4 microbatches, by plain SGD at rate 1, whose update is the gradient: with dropout, all
    auxiliary losses, dropped tokens, and microbatches of different weight."""
    batch, first, done = tiny.batch(), None, {}
    for parts in (1, 2, 4):
        trainer, hyper = tiny.trainer(
            tiny.sparse(SWITCH, capacity_factor=1.0, dropout=0.2),
            loss=TokenLoss(z_loss=0.01, aux=(("balance", 0.5), ("router_z", 0.01))),
            accumulate=parts,
            optimizer=SGD(momentum=0.0),
            learning_rate=1.0,
            weight_decay=0.0,
            clip=0.0,
        )
        first = first or trainer.init(hyper)
        step = jax.jit(trainer.step)
        done[parts] = step(first, batch)
        per_part = batch["weights"].sum(1).reshape(-1, parts).sum(0)
        assert parts == 1 or len(set(per_part)) > 1

    whole, m = done[1]
    before, want = (dict(flatten(s.params)) for s in (first, whole))
    for state, metrics in (done[2], done[4]):
        assert metrics.keys() == m.keys()
        for name, value in m.items():
            for got, expected in zip(jax.tree.leaves(metrics[name]), jax.tree.leaves(value), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=name)
        for path, got in flatten(state.params):
            gradient = before[path] - want[path]
            np.testing.assert_allclose(before[path] - got, gradient, rtol=1e-3, atol=2e-7, err_msg=path)
            assert np.abs(gradient).max() > 1e-6, path

    seen = values(m)
    assert seen["objective"] > seen["loss"] > 0, "z-loss and balance loss add to what is minimised only"
    assert 0 < seen["router_dropped"] < 1 <= seen["router_peak"]
    assert seen["learning_rate"] == 1.0 and seen["grad_norm"] > 0 and seen["tokens"] == batch["weights"].sum()
    assert seen["tokens_read"] == (batch["segments"] > 0).sum()
    _, later = step(dataclasses.replace(first, step=first.step + 1), batch)
    assert later["objective"].total != done[4][1]["objective"].total, "another step, another dropout"


@pytest.mark.slow
def test_experts_learn_in_bfloat16():
    trainer, hyper = tiny.trainer(tiny.sparse(SWITCH), dtype="bfloat16", optimizer=Muon(eps=1e-4), learning_rate=1e-2)
    state, seen = run(trainer, hyper, 25)
    assert loss_of(seen[-1]) < 0.7 * loss_of(seen[0])
    assert {x.dtype for x in jax.tree.leaves((state.params, state.opt))} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert "bf16" in str(jax.make_jaxpr(trainer.step)(state, tiny.batch()))
    for m in map(values, seen):
        assert 0 <= m["router_dropped"] < 1 <= m["router_peak"] <= 4


def test_balance_buffers_move_by_their_rate_and_nothing_else():
    router = toys.balanced(k=2, rate=0.01)
    trainer, hyper = tiny.trainer(tiny.sparse(router), weight_decay=10.0, learning_rate=1e-2)
    before = tiny.at_layer(trainer.init(hyper).params, "balance")
    assert before.shape == (2, 4) and not before.any()
    state, seen = run(trainer, hyper, 3)
    after = np.asarray(tiny.at_layer(state.params, "balance"))
    # Each step adds or takes the rate (or leaves an expert with an even share): no decay, no gradient.
    steps = after / router.rate
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert after.any(axis=1).all() and np.abs(steps).max() <= 3.001
    assert loss_of(seen[-1]) < loss_of(seen[0])
