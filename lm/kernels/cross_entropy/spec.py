"""What a loss of a vocabulary is made of, and what a kernel of it is."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array
Logits = Callable[[Any, Array], Array]  # (parameters, states [B, C, D]) -> logits [B, C, V]


class Terms(NamedTuple):
    """What is minimised, per unit of a token's weight:
    (1 - smoothing) * nll + smoothing * (cross-entropy with the uniform distribution) + z_loss * logsumexp^2."""

    z_loss: float = 0.0
    smoothing: float = 0.0


class TokenLosses(NamedTuple):
    """Of each token [B, S], float32: negative log-likelihood in nats, and whether the target ranks first."""

    nll: Array
    hit: Array


def token_losses(logits: Array, targets: Array) -> tuple[Array, Array, Array]:
    """float32 logits [..., V], targets [...] -> negative log-likelihood in nats, logsumexp, whether the target ranks
    first; each [...]."""
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    target = _picked(logits, targets)
    return log_z - target, log_z, target >= jnp.max(logits, axis=-1)


def _picked(logits: Array, targets: Array) -> Array:
    """logits [..., V] at targets [...]."""
    if jax.sharding.get_abstract_mesh().manual_axes:
        # Within a stage of a pipeline, XLA (JAX 0.10) cannot split a gather by both rows and vocabulary, and aborts.
        return jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], logits, 0).sum(-1)
    # A one-hot contraction would be V times the work of this gather.
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


def summed(nll: Array, log_z: Array, logits: Array, weights: Array, terms: Terms) -> Array:
    """What is minimised, of tokens with these figures [...], logits [..., V] and weights [...]: a number."""
    loss = nll
    if terms.smoothing:
        loss = (1 - terms.smoothing) * nll + terms.smoothing * (log_z - logits.mean(-1))
    if terms.z_loss:
        loss = loss + terms.z_loss * jnp.square(log_z)
    return (loss * weights).sum()


class CrossEntropy(Protocol):
    """A kernel of the table."""

    def __call__(
        self, head: Logits, params: Any, x: Array, targets: Array, weights: Array, terms: Terms, chunk: int
    ) -> tuple[Array, TokenLosses]:
        """(weighted sum of what is minimised, figures of each token) for states x [B, S, D], targets and weights
        [B, S], float32; `chunk`: positions whose logits may exist at once. Gradients go to parameters and states, none
        to the weights, nor through the tokens' figures."""
