"""The plain form: every group's matrix times all rows, of which its own are kept. E times the work."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

Array = jax.Array


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> None:
    """Everything."""


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups) -> tuple[Array, ...]:
    own = _own(groups, len(x))
    return tuple(
        jnp.einsum("en,ni,eio->no", own, x, w.astype(x.dtype), preferred_element_type=jnp.float32).astype(x.dtype)
        for w in weights
    )


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups) -> Array:
    own, dtype = _own(groups, len(dys[0])), dys[0].dtype
    parts = (
        jnp.einsum("en,no,eio->ni", own, dy, w.astype(dtype), preferred_element_type=jnp.float32)
        for dy, w in zip(dys, weights, strict=True)
    )
    return sum(parts, jnp.zeros((), jnp.float32)).astype(dtype)


def outer(x: Array, dys: Sequence[Array], groups: RowGroups, dtype: Any) -> tuple[Array, ...]:
    own = _own(groups, len(x))
    sums = (jnp.einsum("en,ni,no->eio", own, x, dy, preferred_element_type=jnp.float32) for dy in dys)
    return tuple(total.astype(dtype) for total in sums)


def _own(groups: RowGroups, n: int) -> Array:
    """Which rows belong to a group, 1 or 0, [E, N]."""
    return (groups.of(n) == jnp.arange(len(groups.sizes))[:, None]).astype(jnp.float32)
