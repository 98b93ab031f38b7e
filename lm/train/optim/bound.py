"""An optimizer bound to the parameters of a model: which of them train, how far each moves, where its state lies."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.core.errors import UserError
from lm.core.param import Param, Tree, abstract, flatten, map_paths, partition
from lm.train.optim.optimizer import Hyper, Optimizer
from lm.train.optim.release import Release
from lm.train.optim.schedule import Schedule
from lm.train.parametrization.growth import Growth

Array = jax.Array


def decays(p: Param) -> float:
    """1.0 for what weight decay shrinks: weights, not gains or biases."""
    return float(p.kind == "weight")


def by_pattern(
    rules: Sequence[tuple[str, float]], spec: Tree, name: str, otherwise: Callable[[Param], float] | None = None
) -> Tree:
    """The value of the first rule (pattern, value) whose pattern is found in each parameter's path; of a parameter
    that no rule covers, what `otherwise` says of it.

    Raises `UserError` for a broken pattern, and without `otherwise` for a parameter that no rule covers."""
    try:
        compiled = [(re.compile(pattern), float(value)) for pattern, value in rules]
    except (re.error, TypeError, ValueError) as e:
        raise UserError(f"config.optimizer.{name}={rules!r} is no list of (pattern, number): {e}") from e

    def value(text: str, p: Param) -> float:
        for pattern, v in compiled:
            if pattern.search(text):
                return v
        if otherwise is not None:
            return otherwise(p)
        raise UserError(f"no rule of config.optimizer.{name} covers {text}: add ('.*', value) at the end")

    return map_paths(value, spec)


Trainable = Callable[[str, Param], bool]  # as `lm.model.program.Program.trainable`


def trained(spec: Tree, multipliers: Tree, trainable: Trainable | None = None) -> Tree:
    """The spec of what trains: None for buffers, of parameters whose learning rate is 0, and of those that
    are not `trainable`."""

    def one(path: str, p: Param, share: float) -> Param | None:
        return None if p.kind == "buffer" or share == 0 or (trainable and not trainable(path, p)) else p

    return map_paths(one, spec, multipliers)


@dataclasses.dataclass(frozen=True)
class BoundOptimizer:
    """An `Optimizer` for the parameters of `spec`, in which what does not train is None."""

    rule: Optimizer
    spec: Tree
    decay: Tree  # share of weight_decay, by parameter
    multipliers: Tree  # share of the learning rate, by parameter
    gradient: Tree  # how many times as large as the base model's gradients are, by parameter (`Growth.gradient`)
    schedule: Callable[[Array], Array]  # step -> share of the peak learning rate
    release: Release | None = None  # what is frozen until some step

    @classmethod
    def of(
        cls,
        optimizer: Optimizer,
        spec: Tree,
        schedule: Schedule,
        steps: int,
        trainable: Trainable | None = None,
        growth: Tree | None = None,
    ) -> "BoundOptimizer":
        """For a program's whole spec, a run of so many steps, and what the program lets train. With `growth`, a
        `Growth` for each tensor, learning rate, weight decay and eps are a base model's, from which each tensor's
        follow. Raises `UserError` for rules that do not fit the spec."""
        paths = [path for path, _ in flatten(spec)]
        multipliers = by_pattern(optimizer.lr_multipliers, spec, "lr_multipliers")
        for pattern, _ in optimizer.lr_multipliers:  # broken ones have raised by now
            if not any(re.search(pattern, path) for path in paths):
                shown = ", ".join(paths[:3])
                raise UserError(
                    f"config.optimizer.lr_multipliers: {pattern!r} is in no parameter's path; they are {shown} ..."
                )
        whole = spec
        spec = trained(spec, multipliers, trainable)
        if not jax.tree.leaves(spec):
            raise UserError(
                "config.optimizer.lr_multipliers and config.transforms freeze every parameter: give one a share above "
                "0, or add a transform that trains"
            )
        growth = map_paths(lambda _, p: Growth(p), whole) if growth is None else growth
        growth = jax.tree.map(lambda p, g: None if p is None else g, spec, growth, is_leaf=lambda p: p is None)
        rates = jax.tree.map(lambda p, g: g.update / optimizer.growth(p, g), spec, growth)
        decay = by_pattern(optimizer.decay_rules, spec, "decay_rules", decays)
        multipliers = by_pattern(optimizer.lr_multipliers, spec, "lr_multipliers")
        return cls(
            optimizer,
            spec,
            jax.tree.map(lambda share, rate: share / rate, decay, rates),  # so that as much decays in a step
            jax.tree.map(lambda share, rate: share * rate, multipliers, rates),
            jax.tree.map(lambda g: g.gradient, growth),
            lambda step: schedule(step, steps),
            Release.of(optimizer.frozen_until, spec),
        )

    @property
    def hyper(self) -> Hyper:
        """Its traced knobs, as the config says them."""
        return self.rule.hyper

    def split(self, params: Tree) -> tuple[Tree, Tree]:
        """(what trains, the rest): two trees with None where the other has the tensor."""
        trains = jax.tree.map(lambda p: p is not None, self.spec, is_leaf=lambda p: p is None)
        return partition(params, trains)

    def init(self, params: Tree, hyper: Hyper) -> Tree:
        return self._direction(self.spec, hyper).init(params)

    def _direction(self, spec: Tree, hyper: Hyper, step: Array | int = 0) -> optax.GradientTransformation:
        """Of parameters of `spec`, at `step`."""
        rule = self.rule.traced(hyper)
        if self.release is None:
            return rule.direction(spec)
        return dataclasses.replace(self.release, spec=spec).bind(rule.direction, step)

    def state_spec(self, hyper: Hyper) -> Tree:
        """A `Param` for each tensor of the state, with the logical axes of the parameter it belongs to, less those that
        it sums over (Adafactor's factors).

        Which parameter: optax holds what goes with the parameters in trees like theirs, in a field of a tuple. Which
        axes: by their sizes, in a state of parameters whose sizes all differ, as those of a square matrix do not."""

        def state(spec: Tree) -> Tree:
            return jax.eval_shape(self._direction(spec, hyper).init, abstract(spec))

        uneven = jax.tree.map(_uneven, self.spec)
        owners = dict(flatten(uneven))

        def param(path: Any, leaf: jax.ShapeDtypeStruct, told_apart: jax.ShapeDtypeStruct) -> Param:
            owner = owners.get(_below_field(path))
            if owner is None:
                return Param(leaf.shape, (None,) * leaf.ndim, kind="buffer")
            n = owner.batch_dims
            names = dict(zip(owner.shape[n:], owner.axes[n:], strict=True))
            axes = owner.axes[:n] + tuple(names.get(size) for size in told_apart.shape[n:])
            return Param(leaf.shape, axes, kind="buffer")

        return jax.tree_util.tree_map_with_path(param, state(self.spec), state(uneven))

    def update(self, grads: Tree, state: Tree, params: Tree, hyper: Hyper, step: Array) -> tuple[Tree, Tree, dict]:
        """New parameters and state, with the learning rate used and the gradient's norm before clipping."""
        moves = None if self.release is None else self.release.moves(step)
        if moves is not None:  # what is frozen is not part of the norm either
            grads = jax.tree.map(lambda g, m: jnp.where(m, g, 0), grads, moves)
        norm, clip = optax.tree.norm(grads), self.rule.clip
        if clip:
            grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip / (norm + 1e-6)), grads)
        grads = jax.tree.map(lambda g, ratio: g / ratio, grads, self.gradient)  # so that eps means what it does there
        updates, state = self._direction(self.spec, hyper, step).update(grads, state, params)
        rate = hyper["learning_rate"] * self.schedule(step)

        def move(param: Param, p: Array, u: Array, decay: float, share: float) -> Array:
            return p - share * rate * self.rule.scaled(param, p, u + decay * hyper["weight_decay"] * p)

        moved = jax.tree.map(move, self.spec, params, updates, self.decay, self.multipliers)
        if moves is not None:
            moved = jax.tree.map(lambda new, old, m: jnp.where(m, new, old), moved, params, moves)
        return moved, state, {"learning_rate": rate, "grad_norm": norm}


def _uneven(p: Param) -> Param:
    """`p` with sizes that differ from each other, batch axes aside, in the order that they had: of two that were equal
    the later one is greater, as a stable sort has them."""
    sizes, n, last = list(p.shape), p.batch_dims, 1  # 1 is what an optimizer keeps of a tensor it does not factor
    for i in sorted(range(n, len(sizes)), key=lambda i: sizes[i]):
        sizes[i] = last = max(sizes[i], last + 1)
    return dataclasses.replace(p, shape=tuple(sizes))


def _below_field(path: tuple[Any, ...]) -> str:
    """The names at the end of a path, which lead through dicts, as one."""
    names = itertools.takewhile(lambda key: isinstance(key, jax.tree_util.DictKey), reversed(path))
    return "/".join(reversed([str(key.key) for key in names]))
