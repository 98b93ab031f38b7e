"""The matrix product that every weight goes through."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from lm.core.remat import PRODUCT
from lm.core.shards import Shards, whole

Array = jax.Array


def matmul(
    x: Array,
    w: Array,
    bias: Array | None = None,
    transpose: bool = False,
    dtype: Any = None,
    shards: Shards | None = None,
) -> Array:
    """x [..., in] times w [in, out] (stored [out, in] with `transpose`) plus bias [out] -> [..., out], in x's dtype or
    `dtype`.

    Leading axes of a w with more than two correspond to those of x, as in `jnp.matmul`. A half-precision product with a
    matrix is summed in float32, as are the gradients of matrix and bias: float32 parameters get them unrounded. A w in
    `shards` is gathered, in x's dtype."""
    dtype = jnp.dtype(dtype or x.dtype)
    if w.ndim == 2:
        return checkpoint_name(_matrix(transpose, dtype, shards, x, w, bias), PRODUCT)
    w = whole(w, shards, x.dtype) if shards else w
    w = w.astype(x.dtype)
    y = (x @ (jnp.swapaxes(w, -1, -2) if transpose else w)).astype(dtype)
    return y if bias is None else y + bias.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _matrix(transpose: bool, dtype: Any, shards: Shards | None, x: Array, w: Array, bias: Array | None) -> Array:
    rounded = shards.gather(w, x.dtype) if shards else w.astype(x.dtype)
    y = product(x, turned(rounded) if transpose else rounded)
    return (y if bias is None else y + bias).astype(dtype)


def _forward(
    transpose: bool, dtype: Any, shards: Shards | None, x: Array, w: Array, bias: Array | None
) -> tuple[Array, tuple]:
    return _matrix(transpose, dtype, shards, x, w, bias), (x, w, bias)


def _backward(
    transpose: bool, dtype: Any, shards: Shards | None, saved: tuple, dy: Array
) -> tuple[Array, Array, Array | None]:
    x, w, bias = saved
    dy, rounded = dy.astype(x.dtype), shards.gather(w, x.dtype) if shards else w.astype(x.dtype)
    sums = shards.summed_over(0 if transpose else 1, x.dtype) if shards else None
    dx = product(dy, rounded if transpose else turned(rounded), sums).astype(x.dtype)
    rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dw = _outer(transpose, shards.sums if shards else None, rows, dys)
    dw = shards.scatter(dw, w.dtype) if shards else dw.astype(w.dtype)
    # As a product with ones: XLA's CPU backend sums half-precision rows more slowly than it multiplies them.
    db = None if bias is None else product(jnp.ones((1, len(dys)), dys.dtype), dys)[0].astype(bias.dtype)
    return dx, dw, db


_matrix.defvjp(_forward, _backward)


def _outer(transpose: bool, dtype: Any, x: Array, dy: Array) -> Array:
    """x^T dy [in, out], with `transpose` [out, in], summed as `product` does, of x [N, in] and dy [N, out]. On a CPU
    the narrower of the two is transposed: the other may be hidden units or a vocabulary, many times wider."""

    def turn(a: Array, b: Array, back: bool) -> Array:
        outer = product(_transposed(a), b, dtype)
        return _transposed(lax.optimization_barrier(outer)) if back else outer  # XLA would transpose b instead

    def turn_x(x: Array, dy: Array) -> Array:
        return turn(x, dy, transpose)

    def turn_dy(x: Array, dy: Array) -> Array:
        return turn(dy, x, not transpose)

    narrower = turn_x if x.shape[1] <= dy.shape[1] else turn_dy
    return lax.platform_dependent(x, dy, cpu=narrower, default=turn_dy if transpose else turn_x)


def product(x: Array, w: Array, dtype: Any = None) -> Array:
    """Summed in float32, or what is wider, and given as that, or in `dtype`."""
    total = dtype or jnp.promote_types(x.dtype, jnp.float32)
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=total)


def turned(w: Array) -> Array:
    """w^T. XLA:CPU uses a float32 `w` in place but needs a copy of a half-precision one."""
    return w.T if w.dtype == jnp.float32 else _transposed(w)


def _transposed(x: Array) -> Array:
    """x^T; on a CPU as a row-major copy. XLA:CPU multiplies faster when the first matrix is no transposed view, half
    precision three times and float32 up to twice, and would fold a plain transpose into the product.

    An axis of one comes and goes because XLA:CPU (JAX 0.10) takes a transpose for a column-major array until it lays
    arrays out, and widens half precision before that for all products but those of row-major arrays."""

    def copy(x: Array) -> Array:
        return lax.optimization_barrier(x.T[None])[0]

    return lax.platform_dependent(x, cpu=copy, default=jnp.transpose)
