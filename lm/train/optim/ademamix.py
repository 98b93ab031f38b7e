"""AdEMAMix: Adam with a second, much older average of the gradients."""

import jax
import jax.numpy as jnp
import optax

from lm.core.component import component
from lm.core.param import Tree
from lm.core.ranges import BelowOne, CountOrNone, NotNegative, Positive
from lm.train.optim.optimizer import Optimizer

Array = jax.Array


@component
class AdEMAMix(Optimizer):
    """Pagliardini et al. 2024, arXiv 2409.03137: gradients that are thousands of steps old still help, where an average
    that forgets in ten steps goes beside them. One more tensor of state than Adam."""

    b1: BelowOne = 0.9  # share kept of the young average of gradients
    b2: BelowOne = 0.999  # of the average of their squares
    b3: BelowOne = 0.9999  # of the old average
    alpha: NotNegative = 5.0  # how much the old average counts beside the young one
    eps: Positive = 1e-8  # beside the square root
    ramp: CountOrNone = 0  # steps in which alpha grows from 0, and b3 from b1; the paper takes all of a run; 0: none

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        b3, alpha = (self._b3_at, self._alpha_at) if self.ramp else (self.b3, self.alpha)
        return optax.contrib.scale_by_ademamix(self.b1, self.b2, b3, alpha, self.eps)

    def _alpha_at(self, step: Array) -> Array:
        return self.alpha * jnp.minimum(step / self.ramp, 1.0)

    def _b3_at(self, step: Array) -> Array:
        """Such that the half-life of the old average grows evenly (appendix A.1 there)."""
        share = jnp.minimum(step / self.ramp, 1.0)
        return jnp.exp(1 / ((1 - share) / jnp.log(self.b1) + share / jnp.log(self.b3)))
