"""The plain form: logits of all positions at once, and the gradient that JAX makes of it."""

from typing import Any

import jax

from lm.kernels.cross_entropy.spec import Logits, Terms, TokenLosses, summed, token_losses

Array = jax.Array


def reference(
    head: Logits, params: Any, x: Array, targets: Array, weights: Array, terms: Terms, chunk: int
) -> tuple[Array, TokenLosses]:
    """See `CrossEntropy`; without chunks."""
    logits = head(params, x)
    nll, log_z, hit = token_losses(logits, targets)
    total = summed(nll, log_z, logits, jax.lax.stop_gradient(weights), terms)
    return total, jax.lax.stop_gradient(TokenLosses(nll, hit))
