"""The matrix product that every weight goes through."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

Array = jax.Array
HALF = (jnp.bfloat16, jnp.float16)


def matmul(x: Array, w: Array, bias: Array | None = None, transpose: bool = False, dtype: Any = None) -> Array:
    """x [..., in] times w [in, out] (stored [out, in] with `transpose`) plus bias [out] -> [..., out], in x's dtype or
    `dtype`.

    Leading axes of a w with more than two correspond to those of x, as in `jnp.matmul`. A half-precision product with a
    matrix is summed in float32, as are the gradients of matrix and bias: float32 parameters get them unrounded."""
    dtype = jnp.dtype(dtype or x.dtype)
    if w.ndim == 2 and (transpose or x.dtype in HALF):
        return _matrix(transpose, dtype, x, w, bias)
    w = w.astype(x.dtype)
    y = (x @ (jnp.swapaxes(w, -1, -2) if transpose else w)).astype(dtype)
    return y if bias is None else y + bias.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matrix(transpose: bool, dtype: Any, x: Array, w: Array, bias: Array | None) -> Array:
    y = _product(x, _turned(w.astype(x.dtype)) if transpose else w.astype(x.dtype))
    return (y if bias is None else y + bias).astype(dtype)


def _forward(transpose: bool, dtype: Any, x: Array, w: Array, bias: Array | None) -> tuple[Array, tuple]:
    return _matrix(transpose, dtype, x, w, bias), (x, w, bias)


def _backward(transpose: bool, dtype: Any, saved: tuple, dy: Array) -> tuple[Array, Array, Array | None]:
    x, w, bias = saved
    dy, rounded = dy.astype(x.dtype), w.astype(x.dtype)
    dx = _product(dy, rounded if transpose else _turned(rounded)).astype(x.dtype)
    rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    # Transpose x rather than dy, which is many times wider if w is a vocabulary; the barrier keeps XLA from undoing it
    dw = _product(_transposed(rows), dys)
    dw = (_transposed(lax.optimization_barrier(dw)) if transpose else dw).astype(w.dtype)
    # As a product with ones: XLA's CPU backend sums half-precision rows more slowly than it multiplies them.
    db = None if bias is None else _product(jnp.ones((1, len(dys)), dys.dtype), dys)[0].astype(bias.dtype)
    return dx, dw, db


_matrix.defvjp(_forward, _backward)


def _product(x: Array, w: Array) -> Array:
    """Summed in float32, or what is wider."""
    total = jnp.promote_types(x.dtype, jnp.float32)
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=total)


def _turned(w: Array) -> Array:
    """w^T. XLA:CPU uses a float32 `w` in place but needs a copy of a half-precision one."""
    return w.T if w.dtype == jnp.float32 else _transposed(w)


def _transposed(x: Array) -> Array:
    """x^T; on a CPU as a row-major copy. XLA:CPU multiplies half-precision matrices twice as fast when neither is a
    transposed view, and would fold a plain transpose into the product."""

    def copy(x: Array) -> Array:
        return with_layout_constraint(x.T, Layout((0, 1)))

    return lax.platform_dependent(x, cpu=copy, default=jnp.transpose)
