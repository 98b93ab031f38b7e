"""Adafactor: second moments kept as a row and a column."""

import optax

from lm.core.component import component
from lm.core.param import Param, Tree
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.per_tensor import stacked
from lm.train.parametrization.growth import Growth


@component
class Adafactor(Optimizer):
    """Shazeer and Stern 2018, arXiv 1804.04235: factored second moments, updates clipped to unit rms."""

    factored: bool = True  # second moments of large matrices as a row and a column; PaLM: whole
    relative: bool = False  # steps in proportion to the rms of a parameter, or 1e-3 where that is less (T5, PaLM)
    momentum: bool = False  # a running mean of the updates, 0.9 of it kept (PaLM)

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        parts = [optax.scale_by_factored_rms(factored=self.factored), optax.clip_by_block_rms(1.0)]
        parts += [optax.scale_by_param_block_rms()] if self.relative else []
        parts += [optax.ema(0.9, debias=False)] if self.momentum else []
        return stacked(optax.chain(*parts), spec)

    def growth(self, param: Param, growth: Growth) -> float:
        return growth.init if self.relative else 1.0
