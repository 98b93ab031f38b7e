"""Lion: the sign of a momentum."""

import optax

from lm.core.component import component
from lm.core.param import Tree
from lm.core.ranges import BelowOne
from lm.train.optim.optimizer import Optimizer


@component
class Lion(Optimizer):
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675); wants a tenth of Adam's learning rate
    and ten times its weight decay."""

    b1: BelowOne = 0.9  # share of the momentum in what is taken the sign of; the rest is the gradient
    b2: BelowOne = 0.95  # share kept of the momentum

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        return optax.scale_by_lion(b1=self.b1, b2=self.b2)
