"""Adam, its weight decay apart from its gradient."""

import optax

from lm.core.component import component
from lm.core.param import Tree
from lm.core.ranges import BelowOne, Positive
from lm.train.optim.optimizer import Optimizer


@component
class AdamW(Optimizer):
    """Loshchilov and Hutter 2017, arXiv 1711.05101."""

    b1: BelowOne = 0.9  # share kept of the running mean of gradients
    b2: BelowOne = 0.95  # of the running mean of their squares
    eps: Positive = 1e-8  # beside the square root of those; Adam divides 0 by it where a gradient is 0

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)
