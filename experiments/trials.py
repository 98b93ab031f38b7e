"""Trainings of one model that differ in the rows they read, in the order of these and in the initial values: what
experiments/repeated.py, order.py, batches.py and transfer.py are made of.

A run is an array of row numbers, [steps, rows of a batch], so that which text it reads, how often and in what order
are data. Config and parts are those of `lm.train`; the loop is a flat one, since all trainings of a model share one
compiled step: seed and learning rate are traced."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.data.batches import Batch, stack
from lm.train.config import default
from lm.train.optim.schedule import ConstantRate
from lm.train.setup import assemble
from lm.train.state import State
from lm.zoo.registry import knobs

HEAD, LAYERS, VOCAB, CONTEXT, ROWS = 16, 2, 512, 128, 8  # ROWS: of a batch


def shape_of(width: int, layers: int = LAYERS) -> dict[str, int]:
    """Knobs of a LLaMA. Its heads are as wide at every width: attention's scores need no other scale."""
    return {"d_model": width, "heads": width // HEAD, "d_ff": 2 * width, "layers": layers}


def config_of(width: int, source: str, cache: str, rate: float) -> ConfigDict:
    """A small LLaMA on pieces of about two bytes."""
    config = default()
    with config.unlocked():
        # std: about 1 / sqrt(width). With the published 0.02 models this narrow learn late, each seed at another step.
        config.model = knobs("llama", vocab=VOCAB, tied=True, std=0.1, **shape_of(width))
    config.data.update(source=source, cache=cache, tokenizer=f"bpe-{VOCAB}", length=CONTEXT, batch_size=ROWS)
    config.optimizer.learning_rate = rate
    config.schedule.warmup = 20
    config.train.unroll = True
    return config


class Trials:
    """A model by its config, trained as often as `trained` is called."""

    def __init__(self, config: ConfigDict, judged: int = 48) -> None:
        """judged: held-out batches by which all runs are judged, evenly spread"""
        self.parts = assemble(config, sharding=None)
        # The schedule's share of the learning rate comes with each step: runs of every length are one program.
        given: Any = {"data": self.parts.data, "model": self.parts.model, "schedule": ConstantRate(warmup=0)}
        trainer = assemble(config, sharding=None, **given).trainer

        def init(seed: jax.Array) -> State:
            return trainer.first(trainer.program.initialize(jax.random.key(seed)), self.parts.hyper)

        def step(state: State, seed: jax.Array, rate: jax.Array, batch: Batch) -> State:
            state = dataclasses.replace(state, hyper=state.hyper | {"learning_rate": rate})
            return dataclasses.replace(trainer, seed=seed).step(state, batch)[0]

        self._init, self._step = jax.jit(init), jax.jit(step, donate_argnums=0)
        held_out = self.parts.held_out
        chosen = np.unique(np.linspace(0, len(held_out) - 1, judged).astype(int))
        self._held_out = [jax.device_put(held_out.batch(int(k))) for k in chosen]

    def rows(self, count: int) -> Batch:
        """The first `count` rows of the training text in the shuffled order of `config.seed`, each another one."""
        (there,) = self.parts.batches.rows_per_epoch
        if count > there:
            raise UserError(f"--source has {there} rows, and this needs {count} different ones: lower --steps")
        return stack([self.parts.batches.row(n) for n in range(count)])

    def trained(self, rows: Batch, order: Sequence[np.ndarray], seed: int, rates: np.ndarray | None = None) -> Tree:
        """The parameters after one step on each of `order`, [steps, rows of a batch], from the values of `seed`, at
        these learning rates; without any, at those of the config's schedule. Batches may differ in size."""
        if rates is None:
            rates = self.shares(len(order)) * self.parts.config.optimizer.learning_rate
        key = jnp.uint32(seed)
        state = self._init(key)
        for at, rate in zip(order, rates.astype(np.float32), strict=True):
            state = self._step(state, key, rate, {name: x[at] for name, x in rows.items()})
        return state.params

    def shares(self, steps: int) -> np.ndarray:
        """Of the peak learning rate, at each of so many steps."""
        return np.asarray(self.parts.schedule(np.arange(steps), steps))

    def judged(self, params: Tree) -> float:
        """Nats per token of held-out text; nan or infinite if the run diverged."""
        metrics = self.parts.evaluator(params, self._held_out)
        return float(metrics["loss"].total / metrics["loss"].weight)

    def loss(self, params: Tree) -> float:
        """The same of runs none of which may diverge. Raises `UserError`."""
        loss = self.judged(params)
        if not np.isfinite(loss):
            raise UserError(f"a run diverged (its loss is {loss}): lower --rate")
        return loss

    def losses(self, params: Tree, rows: Batch) -> np.ndarray:
        """Nats per token of each of these rows: [rows]."""
        objective, model, dtype = self.parts.objective, self.parts.model, self.parts.dtype
        of = jax.jit(lambda params, batch: objective(model, params, batch, Ctx(), dtype, None).rows)
        found = []
        for at in np.split(np.arange(len(rows["tokens"])), len(rows["tokens"]) // ROWS):
            mean = of(params, {name: x[at] for name, x in rows.items()})
            found.append(np.asarray(mean.total) / np.maximum(np.asarray(mean.weight), 1))
        return np.concatenate(found)


def shuffled(rows: np.ndarray, epochs: int, seed: int) -> np.ndarray:
    """`epochs` times these row numbers, each time in another order, as batches: [steps, ROWS]."""
    orders = [np.random.default_rng((seed, epoch)).permutation(rows) for epoch in range(epochs)]
    return np.concatenate(orders).reshape(-1, ROWS)
