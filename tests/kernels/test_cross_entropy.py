"""Losses of a vocabulary and their gradients, against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.compress.int8 import quantize
from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.kernels.cross_entropy.chunked import chunked
from lm.kernels.cross_entropy.select import KERNELS, cross_entropy
from lm.kernels.cross_entropy.spec import Terms
from lm.train.config import default
from lm.train.parallel import execution_of
from tests import toys

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


def by(name):
    return Ctx(execution=Execution(cross_entropy=name))


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=8)
@given(st.sampled_from([1, 3, 7, 50]), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.2]))
def test_value_and_gradient_equal_plain_ones(name, chunk, smoothing, z_loss):
    terms = Terms(z_loss, smoothing)
    ours = jax.value_and_grad(
        lambda p, x: 3 * cross_entropy(head, p, x, TARGETS, WEIGHTS, by(name), terms, chunk)[0], argnums=(0, 1)
    )(PARAMS, X)
    theirs = jax.value_and_grad(lambda p, x: 3 * plain(p, x, terms), argnums=(0, 1))(PARAMS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("chunk", [2, 50])
def test_each_tokens_figures_are_plain_whatever_is_minimised(name, chunk):
    total, each = cross_entropy(head, PARAMS, X, TARGETS, WEIGHTS, by(name), Terms(0.5, 0.5), chunk)
    logits = head(PARAMS, X)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), TARGETS[..., None], -1)[..., 0]
    np.testing.assert_allclose(each.nll, nll, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(each.hit, logits.argmax(-1) == TARGETS)


@pytest.mark.parametrize("name", KERNELS)
def test_no_gradient_goes_to_weights_or_through_figures(name):
    def all_of_it(weights, x):
        total, each = cross_entropy(head, PARAMS, x, TARGETS, weights, by(name))
        return total, each.nll.sum()

    assert not jax.grad(lambda w: all_of_it(w, X)[0])(WEIGHTS).any()
    assert not jax.grad(lambda x: all_of_it(WEIGHTS, x)[1])(X).any()


def test_execution_names_a_kernel():
    config = default()
    config.train.cross_entropy = "reference"
    assert execution_of(config, toys.windows()).cross_entropy == "reference"
    assert execution_of(default(), toys.windows()).cross_entropy is None
    with pytest.raises(UserError, match=r"^cross_entropy='chunks' is no kernel; did you mean 'chunked'\?$"):
        cross_entropy(head, PARAMS, X, TARGETS, WEIGHTS, by("chunks"))


def test_a_quantised_head_passes_the_gradient_on():
    params = PARAMS | {"w": quantize(PARAMS["w"], axis=-1)}
    ours = jax.grad(lambda x: chunked(head, params, x, TARGETS, WEIGHTS, Terms(), 3)[0])(X)
    theirs = jax.grad(lambda x: plain(params, x, Terms()))(X)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


def test_logits_of_the_whole_sequence_never_exist():
    x, targets, weights = (a[:, :6] for a in (X, TARGETS, WEIGHTS))
    f = jax.make_jaxpr(jax.grad(lambda p: cross_entropy(head, p, x, targets, weights, Ctx(), chunk=2)[0]))
    assert f"{B},6,{V}" not in str(f(PARAMS)) and f"{B},2,{V}" in str(f(PARAMS))
