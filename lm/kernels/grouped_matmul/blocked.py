"""For CPUs: group after group, the group's rows in blocks of a few sizes, as many as there are.

XLA:CPU needs static shapes and multiplies slowly when there are few rows. So a block has `MOST` rows while there are so
many, and the last one of a group the least multiple of `STEP` that holds the rest: matrices are copied once a group,
which costs little beside the product, and no row is padded in memory. (Gathering a matrix for every block, or batches
of equal blocks, took longer.)"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lm.core.matmul import product, turned
from lm.kernels.grouped_matmul.spec import RowGroups
from lm.kernels.place import Place

Array = jax.Array

STEP, MOST = 32, 256  # rows of a product
STEP_OUTER, MOST_OUTER = 64, 512  # rows that an outer product is summed over: its result is larger, so rather more


def supports(x: Array, weights: Sequence[Array], room: int | None, place: Place) -> str | None:
    return None if place.platform == "cpu" else "it is a loop of small products, for CPUs"


def multiply(x: Array, weights: Sequence[Array], groups: RowGroups) -> tuple[Array, ...]:
    widths = tuple(w.shape[2] for w in weights)
    return _by_blocks((x,), weights, groups, widths, lambda matrix: matrix, product)


def pull_back(dys: Sequence[Array], weights: Sequence[Array], groups: RowGroups) -> Array:
    widths = weights[0].shape[1:2]
    if dys[0].dtype != jnp.float32:  # whose transposes are copies: one for all blocks
        return _by_blocks(dys, weights, groups, widths, turned, product)[0]
    return _by_blocks(dys, weights, groups, widths, lambda matrix: matrix, lambda dy, w: product(dy, turned(w)))[0]


def _by_blocks(
    xs: Sequence[Array],
    weights: Sequence[Array],
    groups: RowGroups,
    widths: tuple[int, ...],
    of_group: Callable[[Array], Array],
    of_block: Callable[[Array, Array], Array],
) -> tuple[Array, ...]:
    """`of_block` of each block of rows of the xs, side by side, and of what `of_group` makes of the group's matrices,
    side by side -> [N, width] for each of `widths`, which is what the columns of a result are cut into."""
    n, dtype = len(xs[0]), xs[0].dtype
    heights = _heights(n, STEP, MOST)
    starts, ends = groups.starts, groups.starts + groups.sizes

    def one(ys: tuple[Array, ...], own: tuple) -> tuple[tuple[Array, ...], None]:
        matrices, start, end = own
        matrix = of_group(_side_by_side(matrices).astype(dtype))

        def block(carry: tuple) -> tuple:
            at, ys = carry
            first = jnp.minimum(at, n - heights[-1])

            def of(height: int) -> Array:
                y = of_block(_side_by_side([_rows(x, first, height) for x in xs]).astype(dtype), matrix)
                return jnp.pad(y, ((0, heights[-1] - height), (0, 0)))

            new = _cut(lax.switch(_least(heights, end - first), [functools.partial(of, h) for h in heights]), widths)
            # Only the products are a branch's: a conditional that handed on `ys` would copy them.
            mine = _between(first, heights[-1], at, end)
            kept = [jnp.where(mine, part, _rows(y, first, heights[-1])) for part, y in zip(new, ys, strict=True)]
            ys = tuple(lax.dynamic_update_slice_in_dim(y, part, first, 0) for y, part in zip(ys, kept, strict=True))
            return at + heights[-1], ys

        return lax.while_loop(lambda carry: carry[0] < end, block, (start, ys))[1], None

    # XLA:CPU cuts and pastes half-precision rows one number at a time, so what is cut and pasted is float32.
    wide = jnp.promote_types(dtype, jnp.float32)
    xs = [x.astype(wide) for x in xs]
    zeros = tuple(jnp.zeros((n, width), wide) for width in widths)
    ys, _ = lax.scan(one, zeros, (tuple(weights), starts, ends))
    return tuple(y.astype(dtype) for y in ys)


def outer(x: Array, dys: Sequence[Array], groups: RowGroups, dtype: Any) -> tuple[Array, ...]:
    n, widths = len(x), tuple(dy.shape[1] for dy in dys)
    heights = _heights(n, STEP_OUTER, MOST_OUTER)
    starts, ends = groups.starts, groups.starts + groups.sizes

    def one(_: None, own: tuple) -> tuple[None, tuple[Array, ...]]:
        start, end = own

        def block(at: Array) -> Array:
            first = jnp.minimum(at, n - heights[-1])

            def of(height: int) -> Array:
                rows = jnp.where(_between(first, height, at, end), _rows(x, first, height), 0)
                return product(turned(rows), _side_by_side([_rows(dy, first, height) for dy in dys]))

            return lax.switch(_least(heights, end - first), [functools.partial(of, h) for h in heights])

        def further(carry: tuple) -> tuple:
            at, total = carry
            return at + heights[-1], total + block(at)

        first = (start + heights[-1], block(start))
        total = lax.while_loop(lambda carry: carry[0] < end, further, first)[1]
        return None, _cut(total.astype(dtype), widths)

    return lax.scan(one, None, (starts, ends))[1]


def _heights(n: int, step: int, most: int) -> tuple[int, ...]:
    """The numbers of rows that a block may have, where there are n."""
    return tuple(sorted({min(height, n) for height in range(step, most + 1, step)}))


def _least(heights: tuple[int, ...], rows: Array) -> Array:
    """The index of the least height that holds so many rows, or of the last."""
    return sum((rows > height).astype(jnp.int32) for height in heights[:-1]) + jnp.int32(0)


def _between(first: Array, height: int, start: Array, end: Array) -> Array:
    """Which of `height` rows from `first` on lie in [start, end), [height, 1]."""
    index = first + jnp.arange(height)[:, None]
    return (index >= start) & (index < end)


def _rows(x: Array, first: Array, height: int) -> Array:
    return lax.dynamic_slice_in_dim(x, first, height)


def _side_by_side(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def _cut(x: Array, widths: tuple[int, ...]) -> tuple[Array, ...]:
    return (x,) if len(widths) == 1 else tuple(lax.split(x, widths, axis=1))
