"""Gradients at the weights of the step before (PipeDream-2BW)."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from lm.core.ctx import Ctx
from lm.core.param import flatten
from lm.runs.checkpoint import Checkpoints, open_model
from lm.train import loop
from lm.train.optim.schedule import ConstantRate
from lm.train.optim.sgd import SGD
from tests.train import tiny

RATE = 0.5


def test_a_step_goes_by_the_weights_of_the_step_before():
    """W(t+1) = W(t) - rate * gradient of batch t at W(t-1), W(-1) being W(0)."""
    plain = {"optimizer": SGD(momentum=0.0), "learning_rate": RATE, "weight_decay": 0.0, "clip": 0.0}
    trainer, hyper = tiny.trainer(tiny.dense(), **plain)
    trainer = dataclasses.replace(trainer, double_buffered=True)
    state = trainer.init(hyper)
    now = before = jax.tree.map(jnp.copy, state.params)

    @jax.jit
    def gradient(params, batch):
        def mean(params):
            loss = trainer.objective(trainer.model, params, batch, Ctx())
            return loss.total / loss.weight

        return jax.value_and_grad(mean)(params)

    step = trainer.jitted(state)
    for k in range(4):
        batch = jax.device_put(tiny.batch(k))
        state, metrics = step(state, batch)
        loss, slope = gradient(before, batch)
        now, before = jax.tree.map(lambda p, g: p - RATE * g, now, slope), now
        np.testing.assert_allclose(metrics["objective"].total / metrics["objective"].weight, loss, rtol=1e-5)
        for tree, like in ((state.params, now), (state.previous, before)):
            for (path, got), (_, want) in zip(flatten(tree), flatten(like), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=path)
    assert step._cache_size() == 1


@pytest.mark.slow
def test_a_run_goes_on_with_both(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    c = tiny.config(tmp_path, schedule=ConstantRate(warmup=0), learning_rate=1e-2)
    c.parallel.double_buffered = True

    def train(workdir: str, steps: int) -> dict[str, bytes]:
        c.train.steps = steps
        loop.train(c, tmp_path / workdir, Console(file=io.StringIO()))
        return tiny.bits(open_model(tmp_path / workdir).params)

    whole, half = train("whole", 6), train("halves", 3)
    assert Checkpoints(tmp_path / "halves", read_only=True).has(3, "previous")
    assert train("halves", 6) == whole != half
    c.parallel.double_buffered = False  # one version is enough to go on as other runs do; and to begin to keep two
    after = train("halves", 7)
    assert not Checkpoints(tmp_path / "halves", read_only=True).has(7, "previous")
    c.parallel.double_buffered = True
    assert train("halves", 8) != after
