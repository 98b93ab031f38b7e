"""LAMB: Adam whose step on each tensor is in proportion to that tensor."""

import jax
import jax.numpy as jnp
import optax

from lm.core.component import component
from lm.core.param import Param, Tree
from lm.core.ranges import BelowOne, Positive
from lm.train.optim.optimizer import Optimizer
from lm.train.parametrization.growth import Growth

Array = jax.Array


@component
class LAMB(Optimizer):
    """You et al. 2019, arXiv 1904.00962, algorithm 2: Adam's direction and the weight decay together have the norm of
    the parameter, layer by layer; for large batches (ALBERT)."""

    b1: BelowOne = 0.9  # share kept of the running mean of gradients
    b2: BelowOne = 0.999  # of the running mean of their squares
    eps: Positive = 1e-6  # beside the square root of those

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)

    def scaled(self, param: Param, value: Array, update: Array) -> Array:
        axes = tuple(range(param.batch_dims, value.ndim))
        norm, of_update = (jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True)) for x in (value, update))
        return update * jnp.where((norm > 0) & (of_update > 0), norm / jnp.where(of_update > 0, of_update, 1), 1.0)

    def growth(self, param: Param, growth: Growth) -> float:
        return growth.init  # `scaled` included, which what decays goes through as well
