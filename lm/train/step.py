"""State and step: `train_step(state, batch) -> (state, metrics)`, one jitted pure function with donated state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.ctx import Ctx, Run
from lm.core.mesh import Sharding
from lm.core.param import Tree, flatten, initialize
from lm.model.transformer import Batch, Model
from lm.train.optimizer import Hyper, Optimizer

Array = jax.Array
Objective = Any  # a component with example(row, rng) and __call__(model, params, batch, ctx, dtype) -> Loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything a step changes, and the hyperparameters it reads (leaves too: runs of one shape can be vmapped)."""

    step: Array  # int32
    params: Tree
    opt: Tree
    hyper: Hyper


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A model, an objective and an optimizer, and how to run them."""

    model: Model
    objective: Objective
    optimizer: Optimizer
    seed: int = 0
    accumulate: int = 1
    dtype: Any = jnp.float32
    run: Run = Run()
    sharding: Sharding | None = None

    def _first(self, hyper: Hyper) -> State:
        params = initialize(self.model.spec(), jax.random.key(self.seed))
        weights, _ = self.optimizer.split(params)
        return State(jnp.zeros((), jnp.int32), params, self.optimizer.init(weights, hyper), hyper)

    def init(self, hyper: Hyper) -> State:
        """Step 0. The same values on every mesh."""
        shardings = self.state_shardings(jax.eval_shape(self._first, hyper))
        return jax.jit(self._first, out_shardings=shardings)(hyper)

    def abstract(self, hyper: Hyper) -> State:
        """Shapes and layouts of the state: enough to compile the step without allocating anything."""
        state = jax.eval_shape(self._first, hyper)
        if self.sharding is None:
            return state
        shardings = self.state_shardings(state)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)

    def state_shardings(self, state: State) -> Any:
        """A `State` of NamedShardings, or None without a mesh: each parameter's layout by the rules; an optimizer
        tensor lies as the parameter whose path ends its own."""
        if self.sharding is None:
            return None
        params = self.sharding.tree(self.model.spec())
        shapes = {path: (p.shape, s) for (path, p), (_, s) in zip(flatten(state.params), flatten(params), strict=True)}
        everywhere = self.sharding.named(())

        def opt(path: Any, leaf: Array) -> Any:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            for own, (shape, sharding) in shapes.items():
                if name.endswith(own) and shape == leaf.shape:
                    return sharding
            return everywhere

        return dataclasses.replace(
            jax.tree.map(lambda _: everywhere, state),
            params=params,
            opt=jax.tree_util.tree_map_with_path(opt, state.opt),
        )

    def jitted(self, state: State) -> jax.stages.Wrapped:
        """`step`, compiled for the layout of `state`, which it takes over (donation)."""
        shardings = self.state_shardings(jax.eval_shape(lambda: state))
        out = None if shardings is None else (shardings, None)
        return jax.jit(self.step, donate_argnums=0, out_shardings=out)

    def step(self, state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        """One step on a global batch: arrays [B, ...]. Metrics are sums over the batch, except learning_rate,
        grad_norm."""
        weights, rest = self.optimizer.split(state.params)
        ctx = Ctx(
            key=jax.random.fold_in(jax.random.key(self.seed + 1), state.step),
            sharding=self.sharding,
            run=self.run,
        )

        def loss(weights: Tree, part: Batch) -> tuple[Array, Any]:
            result = self.objective(self.model, merge(weights, rest), part, ctx, self.dtype)
            return result.total, (result.weight, result.stats, result.out)

        batch = batch | {"row": jnp.arange(batch["tokens"].shape[0])}
        grads, total, (weight, stats, out) = accumulated(loss, weights, batch, self.accumulate)
        weight = jnp.maximum(weight, 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        moved, opt, metrics = self.optimizer.update(grads, state.opt, weights, state.hyper, state.step)
        params = self.model.update(merge(moved, rest), out)
        return State(state.step + 1, params, opt, state.hyper), metrics | stats | {"total": total}


def accumulated(loss: Callable, weights: Tree, batch: Batch, parts: int) -> tuple[Tree, Array, Any]:
    """Gradient, value and aux of a loss that is a sum over rows, `parts` microbatches at a time.

    aux = (weight, stats, out): sums of the first two, rows of `out` (axis 1, behind `layers`) joined in order."""
    grad = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (total, aux), grads = grad(weights, batch)
        return grads, total, aux
    # Row r goes to microbatch r % parts: each microbatch is spread over all devices that hold rows.
    micro = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)

    def one(carry: tuple, part: Batch) -> tuple[tuple, Tree]:
        (total, (weight, stats, out)), grads = grad(weights, part)
        return jax.tree.map(jnp.add, carry, (grads, total, weight, stats)), out

    first = jax.tree.map(lambda x: x[0], micro)
    shapes = jax.eval_shape(grad, weights, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[1], shapes[0][0], *shapes[0][1][:2]))
    (grads, total, weight, stats), out = jax.lax.scan(one, zeros, micro)
    # out leaves are [parts, layers, rows, ...]
    out = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(x.shape[1], -1, *x.shape[3:]), out)
    return grads, total, (weight, stats, out)


def merge(weights: Tree, rest: Tree) -> Tree:
    """The whole tree from the two that `Optimizer.split` made."""
    return jax.tree.map(lambda w, r: r if w is None else w, weights, rest, is_leaf=lambda x: x is None)
