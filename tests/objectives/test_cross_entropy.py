"""The chunked loss and its own gradient, against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.compress.int8 import quantize
from lm.core.leaf import dot
from lm.kernels.cross_entropy import Terms, chunked_loss

B, S, D, V = 2, 7, 6, 11
KEYS = jax.random.split(jax.random.key(0), 5)
X = jax.random.normal(KEYS[0], (B, S, D))
PARAMS = {"w": jax.random.normal(KEYS[1], (V, D)), "b": jax.random.normal(KEYS[2], (V,))}
TARGETS = jax.random.randint(KEYS[3], (B, S), 0, V)
WEIGHTS = jax.random.uniform(KEYS[4], (B, S)) * (jnp.arange(S) != 3)


def head(p, x):
    return dot(x, p["w"], transpose=True) + p["b"]


def plain(params, x, terms):
    logits = head(params, x)
    log_p, log_z = jax.nn.log_softmax(logits), jax.nn.logsumexp(logits, -1)
    goal = (1 - terms.smoothing) * jax.nn.one_hot(TARGETS, V) + terms.smoothing / V
    loss = -(goal * log_p).sum(-1) + terms.z_loss * log_z**2
    return (loss * WEIGHTS).sum()


@settings(max_examples=8)
@given(st.sampled_from([1, 3, 7, 50]), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.2]))
def test_value_and_gradient_equal_plain_ones(chunk, smoothing, z_loss):
    terms = Terms(z_loss, smoothing)
    ours = jax.value_and_grad(
        lambda p, x: 3 * chunked_loss(head, p, x, TARGETS, WEIGHTS, terms, chunk)[0], argnums=(0, 1)
    )(PARAMS, X)
    theirs = jax.value_and_grad(lambda p, x: 3 * plain(p, x, terms), argnums=(0, 1))(PARAMS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("chunk", [2, 50])
def test_each_tokens_figures_are_plain_whatever_is_minimised(chunk):
    total, each = chunked_loss(head, PARAMS, X, TARGETS, WEIGHTS, Terms(0.5, 0.5), chunk)
    logits = head(PARAMS, X)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), TARGETS[..., None], -1)[..., 0]
    np.testing.assert_allclose(each.nll, nll, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(each.hit, logits.argmax(-1) == TARGETS)


def test_a_quantised_head_passes_the_gradient_on():
    params = PARAMS | {"w": quantize(PARAMS["w"], axis=-1)}
    ours = jax.grad(lambda x: chunked_loss(head, params, x, TARGETS, WEIGHTS, chunk=3)[0])(X)
    theirs = jax.grad(lambda x: plain(params, x, Terms()))(X)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


def test_logits_of_the_whole_sequence_never_exist():
    f = jax.make_jaxpr(jax.grad(lambda p: chunked_loss(head, p, X[:, :6], TARGETS[:, :6], WEIGHTS[:, :6], chunk=2)[0]))
    assert f"{B},6,{V}" not in str(f(PARAMS)) and f"{B},2,{V}" in str(f(PARAMS))
