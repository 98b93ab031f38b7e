"""Spec trees: nested dicts of `Param`, from which values, shapes, shardings, counts and groups are derived.

A spec names every tensor once. Stacked layers carry a leading `layers` axis, experts an `expert` axis; both are batch
axes to everything that works on one matrix at a time (initialisers, per-tensor optimizers).
"""

import abc
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError, nearest

Tree = Any  # a nested dict with arrays, Params or None as leaves
Axes = tuple[str | None, ...]
BATCH_AXES = ("layers", "expert")


@runtime_checkable
class Initializer(Protocol):
    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array: ...


class Gaussian(abc.ABC):
    """An initializer that draws from a Gaussian, of a standard deviation that may depend on the tensor's shape."""

    @abc.abstractmethod
    def deviation(self, shape: tuple[int, ...]) -> float:
        """The standard deviation in a tensor of that shape."""

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self.deviation(shape) * jax.random.normal(key, shape, dtype)


@component
class Normal(Gaussian):
    """Gaussian of a given standard deviation; `depth` > 0 divides it by sqrt(depth) (GPT-2's residual projections)."""

    std: float = 0.02
    depth: int = 0

    def deviation(self, shape: tuple[int, ...]) -> float:
        return self.std / math.sqrt(self.depth) if self.depth else self.std


@component
class FanIn(Gaussian):
    """Gaussian of variance scale / fan-in, the fan-in being the axis before the last."""

    scale: float = 1.0

    def deviation(self, shape: tuple[int, ...]) -> float:
        return math.sqrt(self.scale / shape[-2])


@component
class Xavier(Gaussian):
    """Gaussian of standard deviation gain * sqrt(2 / (fan-in + fan-out)), of the last two axes (Glorot and Bengio 2010,
    "Understanding the difficulty of training deep feedforward neural networks")."""

    gain: float = 1.0

    def deviation(self, shape: tuple[int, ...]) -> float:
        return self.gain * math.sqrt(2 / (shape[-2] + shape[-1]))


@component
class Constant:
    """The same value everywhere: zeros for biases, ones for gains."""

    value: float = 0.0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.full(shape, self.value, dtype)


@dataclasses.dataclass(frozen=True)
class Param:
    """One tensor: its shape, a logical name for each axis, initial distribution and kind.

    A `buffer` has no gradient, weight decay or optimizer state; its component changes it in `update`. `dtype` is set
    only for tensors with a fixed dtype such as int8; all others share the dtype of the parameter tree."""

    shape: tuple[int, ...]
    axes: Axes
    init: Initializer = Normal()
    kind: Literal["weight", "norm", "bias", "buffer"] = "weight"
    dtype: str | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.axes):
            raise ValueError(f"shape {self.shape} and axes {self.axes} differ in length")

    @property
    def batch_dims(self) -> int:
        """How many leading axes are batch axes (`layers`, `expert`); the tensor proper starts after them."""
        return next((i for i, a in enumerate(self.axes) if a not in BATCH_AXES), len(self.axes))


TABLES = frozenset({"vocab", "position"})  # axes of what is looked up by a row's number


def is_matrix(p: Param) -> bool:
    """Whether a tensor, apart from batch axes, is a matrix between features, and not a vocabulary or position table."""
    inner = p.axes[p.batch_dims :]
    return p.kind == "weight" and len(inner) == 2 and not TABLES & set(inner)


def name_of(path: tuple[Any, ...]) -> str:
    """A JAX key path as `a/b/c`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Tree) -> Iterator[tuple[str, Any]]:
    """(path, leaf) pairs, paths written `a/b/c`."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield name_of(path), leaf


def map_paths(function: Callable, tree: Tree, *others: Tree) -> Tree:
    """`function(path, leaf, *others' leaves)` at each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(name_of(path), *leaves), tree, *others)


def initialize(spec: Tree, key: jax.Array, dtype: Any = jnp.float32) -> Tree:
    """Initial values. Each tensor's random key depends only on its path, so adding a tensor does not change others."""

    def one(name: str, p: Param) -> jax.Array:
        return p.init(jax.random.fold_in(key, zlib.crc32(name.encode())), p.shape, p.dtype or dtype)

    return map_paths(one, spec)


def abstract(spec: Tree, dtype: Any = jnp.float32) -> Tree:
    """ShapeDtypeStructs: enough to lower or count without allocating."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype or dtype), spec)


def count(spec: Tree) -> int:
    """Number of parameters, buffers excluded."""
    return sum(math.prod(p.shape) for p in jax.tree.leaves(spec) if p.kind != "buffer")


def stack(spec: Tree, n: int, axis: str = "layers") -> Tree:
    """The spec of `n` stacked layers (or experts): each tensor gets a leading axis of that name."""
    return jax.tree.map(lambda p: dataclasses.replace(p, shape=(n, *p.shape), axes=(axis, *p.axes)), spec)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of a tree: what trains and what does not.


def partition(tree: Tree, mask: Tree) -> tuple[Tree, Tree]:
    """(where `mask` is True, where it is False): two trees with None where the other has the leaf."""
    chosen = jax.tree.map(lambda m, x: x if m else None, mask, tree)
    return chosen, jax.tree.map(lambda m, x: None if m else x, mask, tree)


def combine(tree: Tree, other: Tree) -> Tree:
    """The whole tree from the two that `partition` made."""
    return jax.tree.map(lambda x, y: y if x is None else x, tree, other, is_leaf=lambda x: x is None)


# ---------------------------------------------------------------------------------------------------------------------
# Ties. A spec holds each tensor once; a model lists (alias, owner) paths and resolves them just before the call.

Ties = tuple[tuple[str, str], ...]


def get(tree: Tree, path: str) -> Any:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def put(tree: Tree, path: str, value: Any) -> Tree:
    """`tree` with `value` at `path`, sharing everything else."""
    name, _, rest = path.partition("/")
    return {**tree, name: put(tree.get(name, {}), rest, value) if rest else value}


def drop(tree: Tree, path: str) -> Tree:
    """`tree` without the entry at `path` (KeyError if there is none)."""
    name, _, rest = path.partition("/")
    below = tree[name]
    kept = {k: v for k, v in tree.items() if k != name}
    return {**kept, name: drop(below, rest)} if rest else kept


def without_aliases(spec: Tree, ties: Iterable[tuple[str, str]]) -> Tree:
    """The spec in which each tied tensor occurs once, at its owner.

    Raises `UserError` if a path of a tie does not exist, or the two sides differ in shape."""
    for alias, owner in ties:
        shapes = [jax.tree.map(lambda p: p.shape, _side(spec, path, (alias, owner))) for path in (alias, owner)]
        if shapes[0] != shapes[1]:
            named = f"{alias} {shapes[0]} and {owner} {shapes[1]}"
            raise UserError(f"tied tensors differ in shape, {named}: make them equal")
        spec = drop(spec, alias)
    return spec


def _side(spec: Tree, path: str, tie: tuple[str, str]) -> Tree:
    try:
        return get(spec, path)
    except (KeyError, TypeError):
        paths = [p for p, _ in flatten(spec)]
        raise UserError(f"the tie {tie} names {path!r}, which the spec does not have{nearest(path, paths)}") from None


def with_aliases(params: Tree, ties: Iterable[tuple[str, str]]) -> Tree:
    """The parameters as the components expect them, aliases pointing at their owners."""
    for alias, owner in ties:
        params = put(params, alias, get(params, owner))
    return params
