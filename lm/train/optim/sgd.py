"""Gradient descent with momentum."""

import optax

from lm.core.component import component
from lm.core.param import Tree
from lm.core.ranges import BelowOne
from lm.train.optim.optimizer import Optimizer


@component
class SGD(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum (Polyak 1964)."""

    momentum: BelowOne = 0.9  # share kept of the running sum of gradients

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        return optax.trace(decay=self.momentum)
