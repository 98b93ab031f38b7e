"""Training and evaluation on text that runs on from batch to batch, by models that remember."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.component import to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.evaluate.evaluator import Evaluator
from lm.objectives.permuted import Permutation
from lm.runs.checkpoint import Checkpoints
from lm.train.loop import train
from lm.train.setup import assemble, remembers
from lm.zoo.registry import build, knobs
from tests.train import tiny

MODEL = {"layers": 2, "d_model": 16, "heads": 4, "d_ff": 24, "vocab": 384}
STEPS = 4  # of LENGTH tokens


def config(folder, memory=tiny.LENGTH * STEPS, **train):
    """A run whose memory holds all that was read before."""
    c = tiny.config(folder)
    with c.unlocked():
        c.model = knobs("transformer_xl", **MODEL, memory=memory, cutoffs=(100,))
    c.data.packing = "stream"
    c.train.update(steps=STEPS, **train)
    return c


def parts(c):
    """Trainer, hyperparameters that leave the parameters alone, and batches."""
    c.optimizer.update(learning_rate=0.0, weight_decay=0.0)
    made = assemble(c, sharding=None)
    return made.trainer, made.hyper, made.batches, made.held_out


def run(trainer, hyper, batches, steps=STEPS):
    """The last state, and the summed loss of each step."""
    state = trainer.init(hyper)
    step, losses = jax.jit(trainer.step), []
    for k in range(steps):
        state, metrics = step(state, jax.device_put(batches.batch(k)))
        losses.append(float(metrics["loss"].total))
    return state, losses


def at_once(trainer, params, batches, steps=STEPS):
    """The loss of all those batches' text in one long row per lane, by step."""
    found = [batches.batch(k) for k in range(steps)]
    names = ("tokens", "targets", "weights", "segments", "positions")
    whole = {name: np.concatenate([b[name] for b in found], axis=1) for name in names}
    rows = {name: whole[name] for name in ("tokens", "segments", "positions")}
    logs = jax.jit(trainer.model)(params, rows)
    nll = -np.take_along_axis(np.asarray(logs), whole["targets"][..., None], 2)[..., 0] * whole["weights"]
    return nll.reshape(len(nll), steps, -1).sum((0, 2)).tolist()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_training_with_memory_is_one_long_row(tmp_path, accumulate):
    trainer, hyper, batches, _ = parts(config(tmp_path, accumulate=accumulate))
    state, losses = run(trainer, hyper, batches)
    np.testing.assert_allclose(losses, at_once(trainer, state.params, batches), rtol=1e-5)
    forgetful = dataclasses.replace(trainer, memory=0)
    assert np.abs(np.array(run(forgetful, hyper, batches)[1]) / losses - 1)[1:].min() > 1e-6


def test_a_skipped_step_forgets(tmp_path):
    """In half precision, whose memory is as wide: what a step that overflowed remembers is no number."""
    c = config(tmp_path, dtype="float16")
    trainer, hyper, batches, _ = parts(c)
    state = trainer.init(hyper)
    step = jax.jit(trainer.step)
    good, _ = step(state, jax.device_put(batches.batch(0)))
    assert jax.tree.map(lambda x: x.dtype, good.memory) == jax.tree.map(lambda x: x.dtype, state.memory)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(good.memory))
    broken = dataclasses.replace(good, params=jax.tree.map(lambda x: x * jnp.inf, good.params))
    skipped, _ = step(broken, jax.device_put(batches.batch(1)))
    assert skipped.monitor.scale < good.monitor.scale
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(skipped.memory))


def test_evaluation_goes_on_as_training_does(tmp_path):
    trainer, hyper, batches, _ = parts(config(tmp_path))
    state, losses = run(trainer, hyper, batches)
    evaluator = Evaluator(trainer.model, trainer.objective, memory=tiny.ROWS)
    found = evaluator(state.params, [batches.batch(k) for k in range(STEPS)])
    np.testing.assert_allclose(found["loss"].total, sum(losses), rtol=1e-5)


def test_a_fresh_row_remembers_nothing(tmp_path):
    trainer, hyper, batches, _ = parts(config(tmp_path))
    state, _ = run(trainer, hyper, batches)
    batch = batches.batch(STEPS)
    reset = batch | {"reset": np.arange(tiny.ROWS) % 2}

    def per_row(cache, batch):
        batch = {name: jnp.asarray(x)[None].swapaxes(0, 1) for name, x in batch.items()}
        cache = jax.tree.map(lambda x: x[:, None], cache)

        def one(batch, cache):
            return trainer.objective(trainer.model, state.params, batch, Ctx(), cache=cache).total

        return np.asarray(jax.vmap(one)(batch, cache))

    empty = jax.tree.map(jnp.zeros_like, state.memory)
    kept, none, some = per_row(state.memory, batch), per_row(empty, batch), per_row(state.memory, reset)
    assert np.abs(kept - none).min() > 0
    np.testing.assert_array_equal(some, np.where(reset["reset"], none, kept))


@pytest.mark.slow
def test_a_run_that_goes_on_remembers(tmp_path):
    """Killed and resumed, and on a mesh: the same text, the same parameters."""
    whole, cut, meshed = config(tmp_path), config(tmp_path), config(tmp_path)
    result = train(whole, tmp_path / "whole")
    cut.log.checkpoint_every = STEPS // 2
    train(cut, tmp_path / "cut")
    path = tmp_path / "cut" / "checkpoints"
    saved = Checkpoints(tmp_path / "cut")
    saved.forget(after=STEPS // 2)
    saved.close()
    assert [p.name for p in path.iterdir() if p.name.isdecimal()] == [str(STEPS // 2)]
    assert train(cut, tmp_path / "cut") == result
    meshed.mesh.update(data=2, fsdp=4)
    np.testing.assert_allclose(train(meshed, tmp_path / "meshed")["loss"], result["loss"], rtol=1e-4)


def test_who_remembers():
    one = build({"family": "transformer_xl", **MODEL, "memory": 4})
    assert remembers(one) and not remembers(build({"family": "gopher", "layers": 1, "d_model": 8, "heads": 2}))
    other = to_dict(one)
    blocks = other["body"]["stack"]["segments"][0]["pattern"]
    own = to_dict(build({"family": "gopher", "layers": 1, "d_model": 16, "heads": 4}))
    blocks += own["body"]["stack"]["segments"][0]["pattern"]
    with pytest.raises(UserError, match="remembers in some of its layers only"):
        remembers(build(other))


def test_what_cannot_run_on(tmp_path):
    c = config(tmp_path)
    with pytest.raises(UserError, match=r"config.objective Permutation begins every row anew.*: take NextToken"):
        assemble(c, objective=Permutation(), sharding=None).trainer.init({})
    c.parallel.pipeline, c.data.source = 2, "nowhere.txt"  # which is not looked for
    with pytest.raises(UserError, match=r"^config.parallel.pipeline=2 passes no memory on, but config.data.packing="):
        train(c, tmp_path / "staged")
    c = config(tmp_path)
    with c.unlocked():
        c.model = knobs("gpt2", layers=1, d_model=8, heads=2, vocab=384, context=tiny.LENGTH)
    with pytest.raises(UserError, match="counts positions on through a document, but this model has only 16"):
        train(c, tmp_path / "run")
