"""For a few rows, as when one text is continued: each row in turn, reading its own group's matrix and no other.

The loop is what makes that cheap on a CPU: one buffer, which stays in the cache, takes each matrix in turn. (A gather
of all of them, or the same without a loop, took half as long again.)"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from lm.kernels.grouped_matmul.blocked import outer
from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

__all__ = ["multiply", "outer", "pull_back", "supports"]

Array = jax.Array


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> str | None:
    if len(x) > len(weights[0]):
        return "there are more rows than groups, so matrices would be read several times"
    return None if place.platform == "cpu" else "its rows wait for each other, which suits CPUs alone"


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups) -> tuple[Array, ...]:
    def row(own: tuple[Array, Array]) -> tuple[Array, ...]:
        x, group = own
        return tuple(_dot(x, _matrix(w, group, x), 0).astype(x.dtype) for w in weights)

    return lax.map(row, (groups.keep(x), groups.of(len(x))))  # zeros stay zeros, whatever matrix they meet


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups) -> Array:
    def row(own: tuple[tuple[Array, ...], Array]) -> Array:
        dys, group = own
        parts = (_dot(dy, _matrix(w, group, dy), 1) for dy, w in zip(dys, weights, strict=True))
        return sum(parts, jnp.zeros((), jnp.float32)).astype(dys[0].dtype)

    return lax.map(row, (tuple(groups.keep(dy) for dy in dys), groups.of(len(dys[0]))))


def _matrix(w: Array, group: Array, like: Array) -> Array:
    return lax.dynamic_index_in_dim(w, group, keepdims=False).astype(like.dtype)


def _dot(row: Array, matrix: Array, over: int) -> Array:
    return lax.dot_general(row, matrix, (((0,), (over,)), ((), ())), preferred_element_type=jnp.float32)
