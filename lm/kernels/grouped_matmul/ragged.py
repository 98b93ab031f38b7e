"""XLA's own, `jax.lax.ragged_dot`: good where its backend has a kernel for it. On a CPU it multiplies every row by
every group's matrix."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

Array = jax.Array

BY_GROUP = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
)


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> None:
    """Everything."""


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups) -> tuple[Array, ...]:
    return tuple(groups.keep(_product(x, w.astype(x.dtype), groups)).astype(x.dtype) for w in weights)


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups) -> Array:
    dtype = dys[0].dtype
    pairs = zip(dys, weights, strict=True)
    parts = (_product(dy, jnp.swapaxes(w.astype(dtype), 1, 2), groups) for dy, w in pairs)
    return groups.keep(sum(parts, jnp.zeros((), jnp.float32))).astype(dtype)


def outer(x: Array, dys: Sequence[Array], groups: RowGroups, dtype: Any) -> tuple[Array, ...]:
    own, sizes = groups.keep(x), _sizes(groups)
    sums = (jax.lax.ragged_dot_general(own, dy, sizes, BY_GROUP, preferred_element_type=jnp.float32) for dy in dys)
    return tuple(total.astype(dtype) for total in sums)


def _product(x: Array, w: Array, groups: RowGroups) -> Array:
    return jax.lax.ragged_dot(x, w, _sizes(groups), preferred_element_type=jnp.float32)


def _sizes(groups: RowGroups) -> Array:
    """With what groups leave free of their room, so that they stand one after the other."""
    return groups.sizes if groups.room is None else jnp.full_like(groups.sizes, groups.room)
