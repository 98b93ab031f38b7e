"""Muon: orthogonal updates of matrices."""

import math

import jax
import optax

from lm.core.component import component
from lm.core.param import Param, Tree, is_matrix
from lm.core.ranges import BelowOne, Positive
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.per_tensor import stacked
from lm.train.parametrization.growth import Growth


@component
class Muon(Optimizer):
    """Muon for matrices between features (Jordan et al. 2024), each scaled by sqrt(max(1, out / in)); Adam for the
    rest."""

    beta: BelowOne = 0.9  # share kept of the momentum that is orthogonalised
    b1: BelowOne = 0.9  # of the Adam for the rest, as these
    b2: BelowOne = 0.95  # share kept of the running mean of squares
    eps: Positive = 1e-8  # beside the square root of those

    def direction(self, spec: Tree) -> optax.GradientTransformation:
        labels = jax.tree.map(lambda p: "muon" if is_matrix(p) else "adam", spec)
        matrices = jax.tree.map(lambda p: p if is_matrix(p) else None, spec)
        muon = optax.contrib.scale_by_muon(beta=self.beta, weight_dimension_numbers=_in_out)
        adam = optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)
        return optax.partition({"muon": stacked(optax.chain(muon, _scale_by_shape()), matrices), "adam": adam}, labels)

    def growth(self, param: Param, growth: Growth) -> float:
        """A matrix of one spectral norm, which has no size of elements by itself: that of low rank has all of them as
        large as that norm divided by sqrt(in out)."""
        if not is_matrix(param):
            return 1.0
        (i, o), (base_i, base_o) = (p.shape[p.batch_dims :] for p in (param, growth.base))
        return _by_shape(i, o) / _by_shape(base_i, base_o) * math.sqrt(base_i * base_o / (i * o))


def _in_out(tree: Tree) -> Tree:
    """optax's names for the axes of [in, out]; without them it takes a bare matrix only, no tree of them."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(0, 1), tree)


def _scale_by_shape() -> optax.GradientTransformation:
    return optax.stateless_with_tree_map(lambda u, _: u * _by_shape(*u.shape[-2:]))


def _by_shape(inputs: int, outputs: int) -> float:
    return max(1.0, outputs / inputs) ** 0.5
