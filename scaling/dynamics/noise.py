"""The gradient noise scale of a checkpoint: how large a batch is worth its tokens there.

B_simple = tr(covariance of the gradient of one token) / |gradient|^2 (McCandlish et al. 2018, arXiv 1812.06162,
equation 2.9). At a batch of B tokens a step gains 1 / (1 + B_simple / B) of what it would at a very large one: far
below B_simple doubling the batch halves the steps, far above it wastes tokens. `config.train.noise_scale` follows it
through a run, for nothing, from its microbatches; here it is taken at one place, from as many batches as are given.

Of the mean gradients g_1 ... g_n of n batches of b tokens, the products g_i g_j of different ones are unbiased for
|gradient|^2, and mean |g_i|^2 less their mean is tr(covariance) / b: the two batch sizes of the paper's appendix A.1
are b and n b."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree, combine, map_paths, partition
from lm.model.transformer import Model
from lm.objectives.objective import Objective

Array = Any  # of numpy
Gradient = Callable[[Tree, dict], tuple[Tree, jax.Array]]  # (parameters, batch) -> (of the mean loss, tokens)


class Noise(NamedTuple):
    """tokens: B_simple; error: its standard error (both nan where the gradient drowns in noise); covariance: trace of a
    token's; signal: |gradient|^2; batches: that it was taken from."""

    tokens: float
    error: float
    covariance: float
    signal: float
    batches: int


def noise_scale(squares: Array, products: Array, tokens: float) -> Noise:
    """Of n batches of so many tokens: `squares` [n] are |g_i|^2 and `products` [n] those of g_i and the sum of all n.
    The error is the jackknife's, batch by batch. Where |gradient|^2 is estimated to be negative there is no scale."""
    n = len(squares)
    if n < 3:
        raise UserError(f"{n} batches tell of no noise: give 3 or more")
    total, own = float(products.sum()), float(squares.sum())

    def parts(total: Array, own: Array, n: int) -> tuple[Array, Array]:
        signal = (total - own) / (n * (n - 1))
        return tokens * (own / n - signal), signal

    covariance, signal = parts(total, own, n)
    scale = error = float("nan")
    if signal > 0:
        left = np.divide(*parts(total - 2 * products + squares, own - squares, n - 1))  # without each of the batches
        scale, error = covariance / signal, ((n - 1) / n * np.sum((left - left.mean()) ** 2)) ** 0.5
    return Noise(float(scale), float(error), float(covariance), float(signal), n)


def gradient_of(model: Model, objective: Objective) -> Gradient:
    """Of a model's loss per token, by all its weights, without dropout."""
    spec = model.spec()

    def gradient(params: Tree, batch: dict) -> tuple[Tree, jax.Array]:
        weights, buffers = partition(params, map_paths(lambda _, p: p.kind != "buffer", spec))

        def loss(weights: Tree) -> tuple[jax.Array, jax.Array]:
            found = objective(model, combine(weights, buffers), batch, Ctx(), jnp.float32, None)
            return found.total / jnp.maximum(found.weight, 1.0), found.weight

        grads, weight = jax.grad(loss, has_aux=True)(weights)
        return grads, weight

    return jax.jit(gradient)


def measured(gradient: Gradient, params: Tree, batches: Sequence[dict]) -> Noise:
    """At these parameters. Every gradient is taken twice, so that no more than two are held at a time."""
    each, total, squares = [], None, []
    for batch in batches:
        g, weight = gradient(params, batch)
        total = g if total is None else jax.tree.map(jnp.add, total, g)
        squares.append(float(_product(g, g)))
        each.append(float(weight))
    products = [float(_product(gradient(params, batch)[0], total)) for batch in batches]
    return noise_scale(np.array(squares), np.array(products), float(np.mean(each)))


@jax.jit
def _product(a: Tree, b: Tree) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]))
