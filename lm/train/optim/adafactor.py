"""Adafactor: second moments kept as a row and a column."""

import optax

from lm.core.component import component
from lm.core.param import Tree
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.per_tensor import stacked


@component
class Adafactor(Optimizer):
    """Shazeer and Stern 2018, arXiv 1804.04235: factored second moments, updates clipped to unit rms."""

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        return stacked(optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)), spec)
