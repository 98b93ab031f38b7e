"""Every weight is read through `dot`, which multiplies by it, or `take`, which looks up its rows.

Instead of an array, a parameter tree may hold a *leaf*: several arrays with their own arithmetic (int8 values with
scales, a frozen matrix with a low-rank update). Model code reads weights only through these two functions, so it never
needs to know which it has. Each leaf type is defined next to the transform that creates it (`lm.adapt`,
`lm.compress`).
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from lm.core.matmul import matmul

Array = jax.Array
T = TypeVar("T")


def dot(x: Array, w: Any, bias: Any = None, *, transpose: bool = False, dtype: Any = None) -> Array:
    """x [..., in] times w [in, out] plus bias [out] -> [..., out], in x's dtype or `dtype`; with `transpose`, w is
    stored [out, in].

    With batch axes (experts) the leading axes of x and w correspond, as in `jnp.matmul`."""
    if isinstance(w, Leaf):
        return w.linear(x, bias, transpose, dtype)
    return matmul(x, w, bias, transpose, dtype)


def dots(x: Array, ws: Sequence[Any], biases: Sequence[Any]) -> list[Array]:
    """`dot` of x with each of several weights. Leaves of one type may read x once for all of them."""
    kind = type(ws[0])
    if not (issubclass(kind, Leaf) and all(type(w) is kind for w in ws)):
        return [dot(x, w, b) for w, b in zip(ws, biases, strict=True)]
    return kind.linears(x, ws, biases)


def take(w: Any, ids: Array | int, dtype: Any = jnp.float32) -> Array:
    """Rows of a table w [rows, width] at ids [...] -> [..., width]."""
    return w.take(ids, dtype) if isinstance(w, Leaf) else jnp.take(w, ids, axis=0).astype(dtype)


def dense(w: Any, dtype: Any = jnp.float32) -> Array:
    """w itself, or the array that a leaf represents, as needed for merging."""
    return (w.dense() if isinstance(w, Leaf) else w).astype(dtype)


class Leaf(abc.ABC):
    """A replacement for one weight. Its fields are arrays in a parameter tree and `Param`s in a spec tree.

    Declare a type with `@leaf`. Its arrays keep the leading batch axes (`layers`, `expert`) of the weight they replace,
    because walking over layers slices every array of the tree; its other fields are static."""

    @property
    @abc.abstractmethod
    def weight(self) -> Any:
        """The array (in a spec, the `Param`) with the shape and axes of the replaced weight."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @abc.abstractmethod
    def dot(self, x: Array, transpose: bool) -> Array:
        """x [..., in] -> [..., out], as the function `dot` without bias."""

    def linear(self, x: Array, bias: Any, transpose: bool, dtype: Any) -> Array:
        """As the function `dot`."""
        y = self.dot(x, transpose).astype(dtype or x.dtype)
        return y if bias is None else y + bias.astype(y.dtype)

    @classmethod
    def linears(cls, x: Array, leaves: Sequence[Any], biases: Sequence[Any]) -> list[Array]:
        """As the function `dots`, of leaves that are all of this type."""
        return [w.linear(x, b, False, None) for w, b in zip(leaves, biases, strict=True)]

    @abc.abstractmethod
    def take(self, ids: Array | int, dtype: Any) -> Array:
        """ids [...] -> [..., width] in `dtype`, as the function `take`."""

    @abc.abstractmethod
    def dense(self) -> Array:
        """The weight as one float32 array."""


@dataclass_transform(frozen_default=True)
def leaf(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass and pytree node whose fields are children, except those with metadata
    `{"static": True}`.

    Children are keyed like dict entries, so that paths through a leaf look like any others: checkpoints, optimizer
    rules and the sharding of optimizer state identify parameters by path."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = tuple(f.name for f in fields if f.metadata.get("static"))
    names = tuple(f.name for f in fields if f.name not in static)

    def children(x: Any) -> tuple[list, tuple]:
        return [getattr(x, name) for name in names], tuple(getattr(x, name) for name in static)

    def keyed(x: Any) -> tuple[list, tuple]:
        values, rest = children(x)
        return [(jax.tree_util.DictKey(name), value) for name, value in zip(names, values, strict=True)], rest

    def make(rest: tuple, values: Any) -> Any:
        return cls(**dict(zip(names, values, strict=True)), **dict(zip(static, rest, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, keyed, make, children)
    return cls
