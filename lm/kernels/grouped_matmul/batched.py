"""For groups that have room for equally many rows: a batch of products, which multiplies what is left free as well."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

Array = jax.Array


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> str | None:
    return "groups have no room of equal size" if room is None else None


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups) -> tuple[Array, ...]:
    ys = (_einsum("eni,eio->eno", _batch(x, groups), w.astype(x.dtype)) for w in weights)
    return tuple(groups.keep(y.reshape(len(x), -1)).astype(x.dtype) for y in ys)


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups) -> Array:
    (n, _), dtype = dys[0].shape, dys[0].dtype
    pairs = zip(dys, weights, strict=True)
    parts = (_einsum("eno,eio->eni", _batch(dy, groups), w.astype(dtype)) for dy, w in pairs)
    return groups.keep(sum(parts, jnp.zeros((), jnp.float32)).reshape(n, -1)).astype(dtype)


def outer(x: Array, dys: Sequence[Array], groups: RowGroups, dtype: Any) -> tuple[Array, ...]:
    own = _batch(groups.keep(x), groups)
    return tuple(_einsum("eni,eno->eio", own, _batch(dy, groups)).astype(dtype) for dy in dys)


def _batch(x: Array, groups: RowGroups) -> Array:
    """[N, ...] -> [E, room, ...]"""
    return x.reshape(len(groups.sizes), -1, x.shape[-1])


def _einsum(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)
