"""The optimum that counts what a model costs once it is trained: Sardana et al. 2024 (arXiv 2401.00448)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError

from .law import FLOPS_PER_PARAM_TOKEN, Array, Frontier

INFERENCE_FLOPS = 2.0  # a parameter and token: the forward pass
HALVINGS = 64
MOST = 230.0  # log of numbers beyond which nothing is sought, about 1e100
STEP = 1e-4  # of log N and log D, in differences


class Deployment(NamedTuple):
    """A size and its training tokens, for a loss; FLOPs of training and of all inference together."""

    params: Array
    tokens: Array
    flops: Array


def cheapest(law: Frontier, loss: Any, inference_tokens: Any) -> Deployment:
    """The N and D of least 6 N D + 2 N D_inf among those with L(N, D) = loss, D_inf being all tokens that the model
    will read and write; arrays broadcast against each other and against a law of resamples.

    At the optimum (dL / d log N) / (dL / d log D) = 1 + D_inf / (3 D), of Chinchilla's law (alpha A / N^alpha) /
    (beta B / D^beta) (their equation 5); without inference that is the frontier. Any law will do whose loss falls with
    N and with D. Raises `UserError` for a loss that it never reaches."""
    loss, extra = np.broadcast_arrays(np.asarray(loss, np.float64), np.asarray(inference_tokens, np.float64))

    def large_enough(log_n: Array) -> Array:
        """Whether a smaller model would cost no less, if it reaches the loss at all."""
        n = np.exp(log_n)
        d = _tokens_for(law, n, loss)
        with np.errstate(invalid="ignore"):  # of a model that never reaches it: nan, and not large enough
            by_size = law.predict(n * np.exp(-STEP), d) - law.predict(n * np.exp(STEP), d)
            by_data = law.predict(n, d * np.exp(-STEP)) - law.predict(n, d * np.exp(STEP))
            return by_size <= (1 + extra * INFERENCE_FLOPS / (FLOPS_PER_PARAM_TOKEN * d)) * by_data

    log_n = _threshold(large_enough, np.shape(law.predict(1.0, 1.0) + loss + extra))
    n = np.exp(log_n)
    d = _tokens_for(law, n, loss)
    if not np.all(d < np.inf):
        raise UserError(f"no model reaches a loss of {np.min(loss):.4g} under this law; ask for a larger one")
    return Deployment(n, d, n * (FLOPS_PER_PARAM_TOKEN * d + INFERENCE_FLOPS * extra))


def quality(law: Frontier, params: float) -> Any:
    """The loss of a compute-optimal model of so many parameters: what to ask `cheapest` for."""
    a, _ = law.exponents  # by which the optimal size grows with C
    n, _ = law.optimal(1e20)
    return law.predict(*law.optimal(1e20 * (params / n) ** (1 / a)))


def _tokens_for(law: Frontier, n: Array, loss: Array) -> Array:
    """The D with which N parameters reach a loss; inf where they never do."""
    log_d = _threshold(lambda log_d: law.predict(n, np.exp(log_d)) <= loss, np.shape(n))
    return np.where(log_d < MOST - 1, np.exp(log_d), np.inf)


def _threshold(holds: Callable[[Array], Array], shape: tuple[int, ...]) -> Array:
    """The least number from 0 to `MOST` from which on `holds` is true, elementwise; `MOST` where it is nowhere."""
    low, high = np.zeros(shape), np.full(shape, MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached = holds(middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high
