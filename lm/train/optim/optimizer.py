"""Optimizers: optax transforms, with schedules and weight decay whose values are traced, so that several runs of one
shape can be vmapped, and with per-tensor rules mapped over the batch axes that a spec declares."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.core.errors import UserError, nearest
from lm.core.param import Param, Tree, abstract, flatten, is_matrix, map_paths, partition

Array = jax.Array
Hyper = dict[str, Array]  # learning_rate, weight_decay, b1, b2, eps: float32 scalars


def stacked(transform: optax.GradientTransformation, spec: Tree) -> optax.GradientTransformation:
    """`transform` applied to each layer's and expert's tensor by itself: vmapped over the axes that the spec calls
    `layers` and `expert`, never by ndim. Tensors that share those axes' sizes are mapped together."""
    batch = {path: p.shape[: p.batch_dims] for path, p in flatten(spec)}

    def grouped(tree: Tree) -> dict[str, dict[str, Array]]:
        groups: dict[str, dict[str, Array]] = {}
        for path, leaf in flatten(tree):
            groups.setdefault("x".join(map(str, batch[path])) or "single", {})[path] = leaf
        return groups

    def mapped(function: Callable, group: str) -> Callable:
        for _ in () if group == "single" else group.split("x"):
            function = jax.vmap(function)
        return function

    def init(params: Tree) -> Tree:
        return {g: mapped(transform.init, g)(leaves) for g, leaves in grouped(params).items()}

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        own, new = grouped(params), {}
        done: dict[str, Array] = {}
        for g, leaves in grouped(updates).items():
            result, new[g] = mapped(transform.update, g)(leaves, state[g], own[g])
            done |= result
        return jax.tree.unflatten(jax.tree.structure(updates), [done[path] for path, _ in flatten(updates)]), new

    return optax.GradientTransformation(init, update)


def _adamw(h: Hyper, spec: Tree) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=h["b1"], b2=h["b2"], eps=h["eps"])


def _sgd(h: Hyper, spec: Tree) -> optax.GradientTransformation:
    return optax.trace(decay=h["b1"])


def _adafactor(h: Hyper, spec: Tree) -> optax.GradientTransformation:
    """Shazeer and Stern 2018, arXiv 1804.04235: factored second moments, updates clipped to unit rms."""
    one = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return stacked(one, spec)


def _muon(h: Hyper, spec: Tree) -> optax.GradientTransformation:
    """Muon for matrices between features (Jordan et al. 2024), each scaled by sqrt(max(1, out / in)); Adam for the
    rest."""
    labels = jax.tree.map(lambda p: "muon" if is_matrix(p) else "adam", spec)
    matrices = jax.tree.map(lambda p: p if is_matrix(p) else None, spec)
    muon = optax.contrib.scale_by_muon(beta=h["b1"], weight_dimension_numbers=_in_out)
    muon = optax.chain(muon, _scale_by_shape())
    return optax.partition({"muon": stacked(muon, matrices), "adam": _adamw(h, spec)}, labels)


def _in_out(tree: Tree) -> Tree:
    """optax's names for the axes of [in, out]; without them it takes a bare matrix only, no tree of them."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(0, 1), tree)


def _scale_by_shape() -> optax.GradientTransformation:
    def scale(u: Array) -> Array:
        return u * max(1.0, u.shape[-1] / u.shape[-2]) ** 0.5

    return optax.stateless_with_tree_map(lambda u, _: scale(u))


def _lion(h: Hyper, spec: Tree) -> optax.GradientTransformation:
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675); wants a tenth of Adam's learning rate
    and ten times its weight decay."""
    return optax.scale_by_lion(b1=h["b1"], b2=h["b2"])


TRANSFORMS = {"adamw": _adamw, "adafactor": _adafactor, "lion": _lion, "muon": _muon, "sgd": _sgd}


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


def trained(spec: Tree, rates: Tree, trainable: Trainable | None = None) -> Tree:
    """The spec of what trains: None in the places of buffers, of parameters whose rate is 0, and of those that are not
    `trainable`."""

    def one(path: str, p: Param, rate: float) -> Param | None:
        return None if p.kind == "buffer" or rate == 0 or (trainable and not trainable(path, p)) else p

    return map_paths(one, spec, rates)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What `config.optimizer` describes, for the parameters of `spec`, in which what does not train is None."""

    name: str
    spec: Tree
    decay: Tree  # share of weight_decay, by parameter
    rates: Tree  # share of the learning rate, by parameter
    clip: float
    schedule: Callable[[Array], Array]  # step -> share of the peak learning rate

    @classmethod
    def of(
        cls, c: Any, spec: Tree, schedule: Callable[[Array], Array], trainable: Trainable | None = None
    ) -> "Optimizer":
        """From `config.optimizer`, a program's whole spec, the share of the peak learning rate at each step, and what
        the program lets train. Raises `UserError` for names and rules that do not fit."""
        if c.name not in TRANSFORMS:
            raise UserError(f"config.optimizer.name={c.name!r} is unknown{nearest(c.name, TRANSFORMS)}")
        paths = [path for path, _ in flatten(spec)]
        spec = trained(spec, by_pattern(c.rates, spec, "rates"), trainable)
        for pattern, _ in c.rates:  # broken ones are told by now
            if not any(re.search(pattern, path) for path in paths):
                shown = ", ".join(paths[:3])
                raise UserError(f"config.optimizer.rates: {pattern!r} is in no parameter's path; they are {shown} ...")
        if not jax.tree.leaves(spec):
            raise UserError(
                "config.optimizer.rates and config.transforms freeze every parameter: give one a rate above 0, or add "
                "a transform that trains"
            )
        return cls(
            c.name,
            spec,
            by_pattern(c.decay, spec, "decay", decays),
            by_pattern(c.rates, spec, "rates"),
            c.clip,
            schedule,
        )

    def split(self, params: Tree) -> tuple[Tree, Tree]:
        """(what trains, the rest): two trees with None where the other has the tensor."""
        trains = jax.tree.map(lambda p: p is not None, self.spec, is_leaf=lambda p: p is None)
        return partition(params, trains)

    def init(self, params: Tree, hyper: Hyper) -> Tree:
        return TRANSFORMS[self.name](hyper, self.spec).init(params)

    def state_spec(self, hyper: Hyper) -> Tree:
        """A `Param` for each tensor of the state, with the logical axes of the parameter it belongs to, less those that
        it sums over (Adafactor's factors).

        Which parameter: optax holds what goes with the parameters in trees like theirs, in a field of a tuple. Which
        axes: by their sizes, in a state of parameters whose sizes all differ, as those of a square matrix do not."""

        def state(spec: Tree) -> Tree:
            return jax.eval_shape(TRANSFORMS[self.name](hyper, spec).init, abstract(spec))

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
        norm = optax.tree.norm(grads)
        if self.clip:
            grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, self.clip / (norm + 1e-6)), grads)
        updates, state = TRANSFORMS[self.name](hyper, self.spec).update(grads, state, params)
        rate = hyper["learning_rate"] * self.schedule(step)

        def move(p: Array, u: Array, decay: float, share: float) -> Array:
            return p - share * rate * (u + decay * hyper["weight_decay"] * p)

        moved = jax.tree.map(move, params, updates, self.decay, self.rates)
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


def hyper_of(c: Any) -> Hyper:
    """The traced hyperparameters of `config.optimizer`."""
    return {k: jnp.float32(c[k]) for k in ("learning_rate", "weight_decay", "b1", "b2", "eps")}
