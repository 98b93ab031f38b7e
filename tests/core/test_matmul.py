"""Products, whose gradients are their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.leaf import dot
from lm.core.matmul import product

KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (2, 5, 8)).astype(jnp.bfloat16)
BIAS = jax.random.normal(KEYS[2], (6,))
DY = jax.random.normal(KEYS[3], (2, 5, 6)).astype(jnp.bfloat16)


def close(a, b, rtol):
    np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_bfloat16_products_differ_from_float32_ones_by_roundings_only(transpose, biased):
    w = jax.random.normal(KEYS[1], (6, 8) if transpose else (8, 6))
    args = (X, w, BIAS) if biased else (X, w)

    def half(*args):
        return dot(*args, transpose=transpose)

    def exact(x, w, *bias):
        y = x @ (w.T if transpose else w)
        return y + bias[0] if bias else y

    y, back = jax.vjp(jax.jit(half), *args)
    rounded = (X.astype(jnp.float32), w.astype(jnp.bfloat16).astype(jnp.float32), *args[2:])
    z, exact_back = jax.vjp(exact, *rounded)
    assert y.dtype == jnp.bfloat16
    close(y, z, rtol=2**-7)
    ours, theirs = back(DY), exact_back(DY.astype(jnp.float32))
    assert [g.dtype for g in ours] == [a.dtype for a in args]
    close(ours[0], theirs[0], rtol=2**-7)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        close(a, b, rtol=1e-5)


def test_logits_of_half_precision_states_are_not_rounded():
    w = jax.random.normal(KEYS[1], (6, 8))
    y = dot(X, w, transpose=True, dtype=jnp.float32)
    exact = X.astype(jnp.float32) @ w.astype(jnp.bfloat16).astype(jnp.float32).T
    np.testing.assert_allclose(y, exact, rtol=1e-6)
    assert (y != y.astype(jnp.bfloat16)).any()


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("out", [6, 12])  # narrower and wider than x
def test_a_float32_product_has_the_gradient_that_autodiff_gives(transpose, out):
    x, w, bias = X.astype(jnp.float32), jax.random.normal(KEYS[1], (8, out)), jnp.ones(out)
    dy = jax.random.normal(KEYS[3], (2, 5, out))
    y, back = jax.vjp(lambda x, w: dot(x, w.T if transpose else w, bias, transpose=transpose), x, w)
    z, plain = jax.vjp(lambda x, w: x @ w + bias, x, w)
    close(y, z, rtol=1e-6)
    for a, b in zip(back(dy), plain(dy), strict=True):
        close(a, b, rtol=1e-6)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("out", [16, 64])  # narrower and wider than x
def test_gradients_multiply_half_precision_as_it_is_where_xla_can(transpose, out):
    def widened(f, *args):
        """Whether the compiled program has float32 copies of its half-precision factors."""
        text = jax.jit(f).lower(*args).compile().as_text()
        return any(f"f32[{m},{n}]" in text for m, n in ((96, 32), (32, 96), (96, out), (out, 96)))

    x, dy = jnp.ones((96, 32), jnp.bfloat16), jnp.ones((96, out), jnp.bfloat16)
    w = jnp.ones((out, 32) if transpose else (32, out))

    def gradient(x, dy):
        return jax.vjp(lambda w: dot(x, w, transpose=transpose), w)[1](dy)

    assert widened(gradient, x, dy) == widened(product, x.T.copy(), dy)
