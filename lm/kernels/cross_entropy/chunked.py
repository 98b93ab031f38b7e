"""Cross-entropy from hidden states, a chunk of the sequence at a time, so that [B, S, vocab] never exists at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lm.kernels.cross_entropy.spec import Logits, Terms, TokenLosses, summed, token_losses

Array = jax.Array


def chunked(
    head: Logits, params: Any, x: Array, targets: Array, weights: Array, terms: Terms, chunk: int
) -> tuple[Array, TokenLosses]:
    """See `CrossEntropy`. The gradient is computed in the same pass, while a chunk's logits are there, instead of
    making them again: the sum is linear in the loss of each token, so that nothing else is needed for it."""
    return _loss(head, terms, min(chunk, x.shape[1]), params, x, targets, weights)


def _chunks(a: Array, chunk: int) -> Array:
    """[B, S, ...] -> [S / chunk, B, chunk, ...], padded with zeros (whose weight is zero too)."""
    a = jnp.pad(a, [(0, 0), (0, -a.shape[1] % chunk)] + [(0, 0)] * (a.ndim - 2))
    return jnp.swapaxes(a.reshape(a.shape[0], -1, chunk, *a.shape[2:]), 0, 1)


def _whole(parts: Array, length: int) -> Array:
    """The inverse of `_chunks`."""
    parts = jnp.swapaxes(parts, 0, 1)
    return parts.reshape(parts.shape[0], -1, *parts.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _loss(
    head: Logits, terms: Terms, chunk: int, params: Any, x: Array, targets: Array, weights: Array
) -> tuple[Array, TokenLosses]:
    def one(part: tuple[Array, ...]) -> tuple[Array, TokenLosses]:
        h, y, w = part
        logits = head(params, h)
        nll, log_z, hit = token_losses(logits, y)
        return summed(nll, log_z, logits, w, terms), TokenLosses(nll, hit)

    sums, tokens = jax.lax.map(one, tuple(_chunks(a, chunk) for a in (x, targets, weights)))
    return sums.sum(), TokenLosses(*(_whole(t, x.shape[1]) for t in tokens))


def _forward(head: Logits, terms: Terms, chunk: int, params: Any, x: Array, targets: Array, weights: Array) -> tuple:
    leaves, treedef = jax.tree.flatten(params)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]  # quantised ones stay

    def logits_of(own: list[Array], h: Array) -> Array:
        return head(
            jax.tree.unflatten(treedef, [own[real.index(i)] if i in real else leaf for i, leaf in enumerate(leaves)]), h
        )

    def one(gradient: list[Array], part: tuple[Array, ...]) -> tuple[list[Array], tuple]:
        h, y, w = part
        logits, back = jax.vjp(logits_of, [leaves[i] for i in real], h)
        nll, log_z, hit = token_losses(logits, y)
        v = logits.shape[-1]
        # d loss / d logits = (1 + 2 z log Z) softmax - (1 - s) onehot - s / V; a gather would scatter
        slope = (1 + 2 * terms.z_loss * log_z)[..., None]
        onehot = jnp.where(jnp.arange(v) == y[..., None], 1 - terms.smoothing, 0)
        d = slope * jnp.exp(logits - log_z[..., None]) - onehot - terms.smoothing / v
        dp, dh = back(d * w[..., None])
        return jax.tree.map(jnp.add, gradient, dp), (summed(nll, log_z, logits, w, terms), TokenLosses(nll, hit), dh)

    parts = tuple(_chunks(a, chunk) for a in (x, targets, weights))
    dp, (sums, tokens, dh) = jax.lax.scan(one, [jnp.zeros_like(leaves[i]) for i in real], parts)
    gradients: list[Array | None] = [None] * len(leaves)
    for i, g in zip(real, dp, strict=True):
        gradients[i] = g
    tokens = TokenLosses(*(_whole(t, x.shape[1]) for t in tokens))
    return (sums.sum(), tokens), (jax.tree.unflatten(treedef, gradients), _whole(dh, x.shape[1]))


def _backward(head: Logits, terms: Terms, chunk: int, saved: tuple, cotangents: tuple) -> tuple:
    gradients, (scale, _) = saved, cotangents
    dp, dx = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
    return dp, dx, None, None


_loss.defvjp(_forward, _backward)
