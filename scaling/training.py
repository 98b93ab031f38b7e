"""Trains a group of trunks and their cool-downs, and says what became of each point."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.errors import UserError
from lm.core.param import Tree
from lm.data.eval_batches import EvalBatches
from lm.data.open import Data
from lm.objectives.objective import Objective
from lm.train.optim.schedule import ConstantRate
from lm.train.prefetch import DevicePrefetcher, evaluation_batches
from lm.train.setup import Parts, assemble
from lm.train.state import State

from .laws import Array
from .trunks import Point, Trunk

SYNC = 50  # steps between looks at the loss: each look waits for the device
EVALUATION_ROWS = 16  # the same for every batch size, so that all runs are judged on the same tokens
# On a CPU, XLA's products of several matrices at once are slower than one after the other but for the narrowest models:
# each of 3 takes 0.94 times its time alone at d 16, and 1.8 times at d 48 (python -m benchmarks.together).
WIDEST_TOGETHER_ON_CPU = 16


class Judged(NamedTuple):
    """What held-out text says of a model."""

    loss: float | None = None  # nats per byte; None: it diverged
    loss_se: float | None = None  # of that mean over held-out batches, as if they were drawn independently
    accuracy: float | None = None  # share of the tokens that are the likeliest, where the objective reports it
    tokens: int = 0


class Outcome(NamedTuple):
    """How a point ended."""

    trunk: Trunk
    point: Point
    judged: Judged
    seconds: float  # the trunk's share included; of trunks that train together each has its part


def together(trunk: Trunk, platform: str) -> bool:
    """Whether trunks of its program are trained at once rather than one after the other, by which is faster."""
    alone = any(size > 1 for size in dict(trunk.config.mesh).values())
    return not alone and (platform != "cpu" or trunk.cell.d_model <= WIDEST_TOGETHER_ON_CPU)


def train_group(
    group: Sequence[Trunk],
    wanted: Mapping[Trunk, Sequence[Point]],
    data: Data,
    objective: Objective,
    evaluation_tokens: int = 0,
    tick: Callable[[int], None] = lambda flops: None,
) -> Iterator[Outcome]:
    """Train trunks of one program (see `scaling.trunks.groups_of`) and those of their points that are wanted, shortest
    first; what came of each, as it ends.

    Every loss is taken on the same `evaluation_tokens` held-out tokens, evenly spread (0: all of them).
    `tick(flops)` is called after each synced chunk of steps."""
    runs = Members(group, data, objective)
    held_out, chosen = _held_out(runs.parts[0], evaluation_tokens)
    steps = sorted({p.steps for points in wanted.values() for p in points})
    state: State | None = runs.start()
    at, trunk_seconds = 0, 0.0
    for length in steps:
        points = [next(p for p in trunk.points if p.steps == length) for trunk in group]
        began, rates = time.perf_counter(), np.stack([t.rates(p) for t, p in zip(group, points, strict=True)])
        if state is not None:
            state = runs.advance(state, points[0], rates, at, points[0].branch, tick)
        at, branched = points[0].branch, time.perf_counter()
        trunk_seconds += branched - began
        # A copy, since the steps of the cool-down take over what they are given.
        copy = jax.tree.map(jnp.copy, state)
        cooled = None if copy is None else runs.advance(copy, points[0], rates, at, length, tick)
        seconds = (trunk_seconds + time.perf_counter() - branched) / len(group)
        for i, (trunk, point) in enumerate(zip(group, points, strict=True)):
            if point in wanted.get(trunk, ()):
                judged = Judged()
                if cooled is not None:
                    judged = _judged(runs.parts[i], runs.params(cooled, i), held_out, chosen)
                yield Outcome(trunk, point, judged, seconds)


class Members:
    """Trunks of one program as one: a state whose leaves have a leading axis of members, where there are several."""

    def __init__(self, group: Sequence[Trunk], data: Data, objective: Objective) -> None:
        # The learning rate comes with each step, so that one compiled program serves the trunks and their cool-downs.
        constant = ConstantRate(warmup=0)
        self.parts = [
            assemble(trunk.config, model=trunk.size.model, objective=objective, data=data, schedule=constant)
            for trunk in group
        ]
        self._trainer = self.parts[0].trainer
        self._seeds = jnp.array([trunk.config.seed for trunk in group], jnp.uint32)
        self._same_data = len({trunk.config.seed for trunk in group}) == 1
        self.step: Any = None  # (state, batch) -> (state, metrics), once they have started

    def start(self) -> State:
        hyper = [parts.hyper for parts in self.parts]
        if len(self.parts) == 1:
            state = self._trainer.init(hyper[0])
            self.step = self._trainer.jitted(state)
            return state
        stacked = jax.tree.map(lambda *values: jnp.stack(values), *hyper)

        def init(seed: jax.Array, hyper: dict) -> State:
            trainer = dataclasses.replace(self._trainer, seed=seed)
            return trainer.first(trainer.program.initialize(jax.random.key(seed)), hyper)

        def step(state: State, seed: jax.Array, batch: dict) -> tuple[State, dict]:
            return dataclasses.replace(self._trainer, seed=seed).step(state, batch)

        stepped = jax.jit(jax.vmap(step, in_axes=(0, 0, None if self._same_data else 0)), donate_argnums=0)
        self.step = lambda state, batch: stepped(state, self._seeds, batch)
        return jax.jit(jax.vmap(init))(self._seeds, stacked)

    def advance(
        self, state: State, point: Point, rates: Array, first: int, last: int, tick: Callable[[int], None]
    ) -> State | None:
        """Steps first ... last - 1 of a point of each member, which take over `state`; None once no loss is finite.
        rates: [members, steps]"""
        streams = self._streams(first)
        seen = first
        for step in range(first, last):
            rate = rates[:, step].astype(np.float32)
            hyper = state.hyper | {"learning_rate": jnp.asarray(rate if len(rate) > 1 else rate[0])}
            state, measured = self.step(dataclasses.replace(state, hyper=hyper), next(streams))
            if (step + 1) % SYNC == 0 or step + 1 == last:
                if not np.isfinite(np.asarray(measured["objective"].total)).any():
                    return None
                tick((step + 1 - seen) * point.flops // point.steps * len(rates))
                seen = step + 1
        return state

    def _streams(self, first: int) -> Iterator[dict]:
        own = self.parts[:1] if self._same_data else self.parts
        streams = [DevicePrefetcher(parts.batches, parts.sharding, first) for parts in own]
        if self._same_data:
            return iter(streams[0])
        return (jax.tree.map(lambda *rows: jnp.stack(rows), *batches) for batches in zip(*streams, strict=True))

    def params(self, state: State, member: int) -> Tree:
        return state.params if len(self.parts) == 1 else jax.tree.map(lambda x: x[member], state.params)


def _held_out(parts: Parts, tokens: int) -> tuple[EvalBatches, np.ndarray]:
    """Held-out batches, and the numbers of those that are judged by."""
    rows = math.lcm(EVALUATION_ROWS, len(parts.devices))
    held_out = dataclasses.replace(parts.held_out, batch_size=rows)
    asked = math.ceil(tokens / (held_out.length * rows)) or len(held_out)
    return held_out, np.linspace(0, len(held_out) - 1, min(asked, len(held_out))).astype(int)


def _judged(parts: Parts, params: Tree, held_out: EvalBatches, chosen: np.ndarray) -> Judged:
    """The loss is a ratio of sums over batches, nats by bytes; its error is that of a ratio (Cochran 1977, 6.4)."""
    measured = [parts.evaluator(params, [b]) for b in evaluation_batches(held_out, chosen, parts.sharding)]
    if "bits_per_byte" not in measured[0]:
        name = type(parts.objective).__name__
        raise UserError(
            f"objective {name} reports no bits per byte, by which a sweep judges its runs: take another one"
        )
    nats, covered = np.array([[m["bits_per_byte"].total, m["bits_per_byte"].weight] for m in measured], np.float64).T
    tokens = round(sum(m["tokens"].total for m in measured))
    loss = float(nats.sum() / covered.sum())
    if not math.isfinite(loss):
        return Judged(tokens=tokens)
    n = len(nats)
    error = math.sqrt(n / (n - 1) * np.sum((nats - loss * covered) ** 2)) / covered.sum() if n > 1 else None
    hits = [m["accuracy"] for m in measured if "accuracy" in m]
    accuracy = sum(m.total for m in hits) / sum(m.weight for m in hits) if hits else None
    return Judged(loss, error, accuracy, tokens)
