"""State and step: `train_step(state, batch) -> (state, metrics)`, one jitted pure function with donated state."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.ctx import Ctx, Execution
from lm.core.fsdp import fully_sharded
from lm.core.mesh import Sharding
from lm.core.metrics import Mean, Metrics, Sum
from lm.core.param import Tree, abstract, combine, initialize
from lm.core.rows import Batch, tokens_read, weights_of, with_totals
from lm.core.walk import Walk
from lm.model.cache import CacheShape
from lm.model.program import Program
from lm.model.transformer import Model
from lm.objectives.by_group import losses_by
from lm.objectives.objective import Objective, check_needs
from lm.train.health import monitor
from lm.train.optim.bound import BoundOptimizer
from lm.train.optim.optimizer import Hyper
from lm.train.state import State

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A program, an objective and an optimizer, and how to run them."""

    program: Program
    objective: Objective
    optimizer: BoundOptimizer
    initial: Tree = None  # the model's spec with other initial values; None: its own
    seed: Any = 0  # an int, or traced where runs of several seeds are vmapped
    accumulate: int = 1  # microbatches
    batch_warmup: bool = False  # the last microbatches may be empty, and are skipped
    memory: int = 0  # rows of a batch, if the model carries memory from batch to batch; else 0
    recovery: monitor.Recovery = monitor.Recovery()
    noise_scale: bool = False
    double_buffered: bool = False  # gradients are taken at the weights of the step before
    dtype: Any = jnp.float32
    execution: Execution = Execution()
    sharding: Sharding | None = None
    reduce_dtype: Any = jnp.float32  # in which devices add up gradients of weights that they share out
    sources: tuple[str, ...] = ()  # the names of those whose losses are told apart, by their number

    def __post_init__(self) -> None:
        check_needs(self.objective, self.model)

    def first(self, params: Tree, hyper: Hyper) -> State:
        """The state at step 0 with these parameters of the program. Frozen parameters are not averaged."""
        weights, _ = self.optimizer.split(params)
        ema = jax.tree.map(jnp.copy, self.program.split(params)[0]) if self.optimizer.rule.ema else None
        opt, zero = self.optimizer.init(weights, hyper), jnp.zeros((), jnp.int32)
        memory = self.model.cache(CacheShape(self.memory, 0, dtype=self.dtype)) if self.memory else None
        previous = jax.tree.map(jnp.copy, weights) if self.double_buffered else None
        return State(zero, params, opt, hyper, monitor.first(), ema, memory, previous)

    def init(self, hyper: Hyper, params: Tree | None = None) -> State:
        """The state at step 0, with given or random parameters of the model. The same values on every mesh."""

        def make(params: Tree | None) -> State:
            return self.first(self._transformed(params), hyper)

        layout = self.state_shardings(jax.eval_shape(make, params))
        if layout is None:  # explicit, as in a restored state; otherwise the step would be recompiled for that
            layout = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.jit(make, out_shardings=layout)(params)

    def abstract(self, hyper: Hyper) -> State:
        """Shapes and layouts of the state, enough to compile the step without allocating anything."""
        state = jax.eval_shape(lambda: self.first(self._transformed(None), hyper))
        return state if self.sharding is None else _laid_out(state, self.state_shardings(state))

    def abstract_model(self) -> Tree:
        """Shapes and layouts of the model's own parameters, before any transform, as `init` takes them."""
        spec = self.model.spec()
        params = abstract(spec)
        return params if self.sharding is None else _laid_out(params, self.sharding.tree(spec))

    def _transformed(self, params: Tree | None) -> Tree:
        key = jax.random.key(self.seed)
        params = initialize(self.initial or self.model.spec(), key) if params is None else params
        return self.program.transform(params, key)

    def state_shardings(self, state: State) -> Any:
        """A `State` of NamedShardings, or None without a mesh: parameters and optimizer state by the rules for their
        axes."""
        if self.sharding is None:
            return None
        spec = self.program.spec()
        params, averages = self.sharding.tree(spec), self.sharding.of_state.tree(spec)
        everywhere, by_rows = self.sharding.named(()), self.sharding.named(("batch",))
        return dataclasses.replace(
            jax.tree.map(lambda _: everywhere, state),
            params=params,
            ema=None if state.ema is None else self.program.split(averages)[0],
            previous=None if state.previous is None else self.optimizer.split(params)[0],
            memory=jax.tree.map(lambda _: by_rows, state.memory),
            opt=self.sharding.of_state.tree(self.optimizer.state_spec(state.hyper)),
        )

    def jitted(self, state: State) -> jax.stages.Wrapped:
        """`step`, jitted for the layout of `state`, which it donates."""
        shardings = self.state_shardings(jax.eval_shape(lambda: state))
        results = None if shardings is None else (shardings, None)
        return jax.jit(self.step, donate_argnums=0, out_shardings=results)

    def step(self, state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
        """One step on a global batch of arrays [B, ...]. Metrics are those of the objective, `objective` (what is
        minimised, per token), `tokens_read`, and the scalars learning_rate, grad_norm and those of `lm.train.health`. A
        skipped step leaves parameters and optimizer state unchanged."""
        weights, rest = self.optimizer.split(state.params)
        scale = state.monitor.scale if self.scaled else 1.0
        fixed = rest, jax.random.fold_in(jax.random.key(self.seed + 1), state.step), scale

        def loss(walk: Walk, weights: Tree, fixed: tuple, part: Batch, memory: Tree) -> tuple[Array, Any]:
            rest, key, scale = fixed
            ctx = Ctx(
                key=key,
                sharding=self.sharding,
                execution=dataclasses.replace(self.execution, walk=walk),
                embed_gradient=self.optimizer.rule.embed_gradient,
            )
            params = fully_sharded(combine(weights, rest), self.program.spec(), self.sharding, self.reduce_dtype)
            result = self.objective(self.model, params, part, ctx, self.dtype, memory)
            kept = None if memory is None else jax.tree.map(lambda x: x[None], result.cache)  # [1, B, ...], as `aux` is
            of_sources = losses_by(result.rows, part["source"], self.sources) if self.sources else {}
            return result.total * scale, (result.weight, result.metrics | of_sources, (result.aux, kept))

        read = Sum(tokens_read(batch))
        batch = with_totals(batch) | {"row": jnp.arange(batch["tokens"].shape[0])}
        grad = self.execution.walk.value_and_grad(loss, self.sharding)
        at = None if self.sharding is None else self.sharding.of_gradients.tree(self.optimizer.spec)
        taken = weights if state.previous is None else state.previous
        sums = accumulated(grad, taken, fixed, batch, state.memory, self.accumulate, self.batch_warmup, at)
        weight = jnp.maximum(sums.weight, 1.0)
        grads = jax.tree.map(lambda g: g / (weight * scale), sums.grads)
        moved, opt, metrics = self.optimizer.update(grads, state.opt, weights, state.hyper, state.step)
        recorded, kept = sums.aux
        updated, memory = self.model.update(combine(moved, rest), recorded), jax.tree.map(lambda x: x[0], kept)
        free, frozen = self.program.split(updated)[0], self.program.split(state.params)[1]
        params = combine(free, frozen)  # frozen includes frozen buffers, which `update` must not change
        total = sums.total / scale
        metrics |= sums.metrics | {"objective": Mean(total, sums.metrics["tokens"].total), "tokens_read": read}

        checked, watched = monitor.check(
            self.recovery, self.scaled, state.monitor, total / weight, metrics["grad_norm"]
        )
        # A batch that predicts nothing carries no information.
        watched = jax.tree.map(lambda new, old: jnp.where(sums.weight > 0, new, old), watched, state.monitor)
        if self.noise_scale:
            small = sums.squares / jnp.square(scale)
            watched, metrics["noise_scale"] = monitor.noise(
                watched, small, jnp.square(metrics["grad_norm"]), weight, sums.parts
            )
        ema = state.ema
        if ema is not None:  # a shorter average at first, so that it forgets the random initial parameters
            keep = jnp.minimum(self.optimizer.rule.ema, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: keep * e + (1 - keep) * p, ema, free)
        previous = None if state.previous is None else weights
        if self.scaled or self.recovery.action == "skip":
            (params, opt, ema, previous) = jax.tree.map(
                lambda new, old: jnp.where(checked.skipped, old, new),
                (params, opt, ema, previous),
                (state.params, state.opt, state.ema, state.previous),
            )
            memory = jax.tree.map(lambda x: jnp.where(checked.skipped, 0, x).astype(x.dtype), memory)
        metrics |= {"bad": checked.bad} | ({"loss_scale": scale} if self.scaled else {})
        return State(state.step + 1, params, opt, state.hyper, watched, ema, memory, previous), metrics

    def averaged(self, state: State) -> Tree:
        """The program's parameters, or their average if one is kept."""
        return state.params if state.ema is None else combine(state.ema, self.program.split(state.params)[1])

    @property
    def model(self) -> Model:
        return self.program.model

    @property
    def scaled(self) -> bool:
        """Whether the loss is scaled, so that gradients do not vanish in float16."""
        return self.dtype == jnp.float16


class Sums(NamedTuple):
    """Sums over microbatches of a loss that is itself a sum over rows."""

    grads: Tree
    total: Array
    weight: Array
    metrics: Metrics
    squares: Array  # mean over parts of the squared norm of each part's gradient per weight
    parts: Array | int  # how many microbatches had rows
    aux: Tree  # rows (axis 1, after `layers`) concatenated in order


def accumulated(
    grad: Callable,
    weights: Tree,
    fixed: Tree,
    batch: Batch,
    memory: Tree,
    parts: int,
    ragged: bool = False,
    at: Tree = None,
) -> Sums:
    """What `grad` gives (`lm.core.walk.Walk.value_and_grad`), accumulated over `parts` microbatches. Batch and memory,
    leaves [B, ...], are split the same way. With `ragged`, microbatches after the last one with any weight are skipped.
    `at`: the shardings of the gradients and of their sums."""

    def grad_at(*of: Tree) -> tuple[Any, Tree]:
        value, grads = grad(weights, fixed, *of)
        return value, grads if at is None else jax.lax.with_sharding_constraint(grads, at)

    if parts == 1:
        (total, (weight, metrics, aux)), grads = grad_at(batch, memory)
        return Sums(grads, total, weight, metrics, jnp.zeros(()), 1, aux)
    # Row r goes to microbatch r % parts, so that each microbatch is spread over all devices that hold rows.
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), (batch, memory))
    active: Array | int = parts
    if ragged:
        filled = jnp.zeros(parts, bool)
        for counts in weights_of(micro[0]).values():
            filled |= jnp.any(counts > 0, axis=tuple(range(1, counts.ndim)))
        active = jnp.max(jnp.where(filled, jnp.arange(1, parts + 1), 1))

    def one(i: Array, carry: tuple) -> tuple:
        sums, outs = carry
        part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), micro)
        (total, (weight, metrics, aux)), grads = grad_at(*part)
        squares = sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)) / jnp.square(jnp.maximum(weight, 1.0))
        sums = jax.tree.map(jnp.add, sums, (grads, total, weight, metrics, squares))
        return sums, jax.tree.map(lambda whole, x: jax.lax.dynamic_update_index_in_dim(whole, x, i, 0), outs, aux)

    (total, (weight, metrics, aux)), grads = jax.eval_shape(grad_at, *jax.tree.map(lambda x: x[0], micro))
    sums = (grads, total, weight, metrics, total)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums)
    outs = jax.tree.map(lambda s: jnp.zeros((parts, *s.shape), s.dtype), aux)
    (grads, total, weight, metrics, squares), outs = jax.lax.fori_loop(0, active, one, (zeros, outs))
    # out leaves are [parts, layers, rows, ...]
    aux = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(x.shape[1], -1, *x.shape[3:]), outs)
    return Sums(grads, total, weight, metrics, squares / active, active, aux)


def _laid_out(shapes: Tree, shardings: Tree) -> Tree:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
