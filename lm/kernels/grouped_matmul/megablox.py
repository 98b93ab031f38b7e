"""For TPUs: megablox (Gale et al. 2022, arXiv 2211.15841), the Pallas kernels that come with JAX. Tiles of rows meet
only the matrices of the groups that they have rows of."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

Array = jax.Array

ROWS, LANES = 128, 512  # of a tile, at most: a few of them fit into a core's fast memory, in float32 too


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> str | None:
    if room is not None:
        return "groups must stand one after the other"
    if place.partitioned:
        return "XLA cannot cut a Pallas kernel over devices"
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"it knows float32 and bfloat16, not {x.dtype}"
    return None


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups, interpret: bool = False) -> tuple[Array, ...]:
    return tuple(_product(x, w.astype(x.dtype), groups, False, x.dtype, interpret) for w in weights)


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups, interpret: bool = False) -> Array:
    dtype = dys[0].dtype
    pairs = zip(dys, weights, strict=True)
    sums = jnp.float32 if len(dys) > 1 else dtype
    parts = (_product(dy, w.astype(dtype), groups, True, sums, interpret) for dy, w in pairs)
    return sum(parts, jnp.zeros((), sums)).astype(dtype)


def outer(x: Array, dys: Sequence[Array], groups: RowGroups, dtype: Any, interpret: bool = False) -> tuple[Array, ...]:
    x = _whole_tiles(x)
    return tuple(
        _kernels().tgmm(
            x.T,
            _whole_tiles(dy),
            groups.sizes.astype(jnp.int32),
            dtype,
            _tile(x.shape[1], dy.shape[1]),
            interpret=interpret,
        )
        for dy in dys
    )


def _product(x: Array, w: Array, groups: RowGroups, transpose: bool, dtype: Any, interpret: bool) -> Array:
    """[N, out], summed in float32 and given in `dtype`."""
    width = w.shape[1 if transpose else 2]
    y = _kernels().gmm(
        _whole_tiles(x),
        w,
        groups.sizes.astype(jnp.int32),
        dtype,
        _tile(x.shape[1], width),
        transpose_rhs=transpose,
        interpret=interpret,
    )[: len(x)]
    return groups.keep(y)  # rows of no group are left as they were in memory


def _whole_tiles(x: Array) -> Array:
    return jnp.pad(x, ((0, -len(x) % ROWS), (0, 0)))


def _tile(inner: int, width: int) -> tuple[int, int, int]:
    return ROWS, min(inner, LANES), min(width, LANES)


@functools.cache
def _kernels() -> Any:
    """Imported when first used: it takes half a second, and only TPUs need it."""
    import importlib

    return importlib.import_module("jax.experimental.pallas.ops.tpu.megablox.gmm")
