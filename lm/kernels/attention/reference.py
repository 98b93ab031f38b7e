"""The plain form, for all that an `AttentionSpec` can say. It makes all scores [B, H, S, T] at once, in float32."""

import jax
import jax.numpy as jnp

from lm.core.rows import HIDDEN, Tokens, visible
from lm.kernels.attention.spec import AttentionSpec, Bias, OnProbs, Own
from lm.kernels.place import Place

Array = jax.Array


def supports(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> None:
    """Everything."""


def reference(
    q: Array,
    k: Array,
    v: Array,
    spec: AttentionSpec,
    q_tokens: Tokens,
    k_tokens: Tokens,
    *,
    place: Place,
    bias: Bias | None = None,
    sinks: Array | None = None,
    own: Own | None = None,
    on_probs: OnProbs | None = None,
) -> Array:
    """See `Attend`."""
    b, h, s, _ = q.shape
    kv, t = k.shape[1], k.shape[2]
    grouped = q.reshape(b, kv, h // kv, s, -1)  # queries beside the key head that they share
    scores = jnp.einsum("bkgsd,bktd->bkgst", grouped, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(b, h, s, t) * spec.scale
    if bias is not None:
        scores = scores + bias(q_tokens, k_tokens).astype(jnp.float32)
    scores = spec.cap * jnp.tanh(scores / spec.cap) if spec.cap else scores
    scores = jnp.where(visible(spec.mask, q_tokens, k_tokens, spec.extra)[:, None], scores, HIDDEN)
    if sinks is not None:
        scores = jnp.concatenate([scores, jnp.broadcast_to(sinks[:, None, None], (b, h, s, 1))], axis=-1)
    if own is not None:
        scores = jnp.concatenate([scores, own.scores[..., None]], axis=-1)
    probs = jax.nn.softmax(scores, axis=-1)
    probs = probs if own is not None else probs[..., :t]  # what sinks took is read by nobody
    probs = (on_probs(probs) if on_probs else probs).astype(v.dtype)
    out = jnp.einsum("bkgst,bktw->bkgsw", probs[..., :t].reshape(b, kv, h // kv, s, t), v)
    out = out.reshape(b, h, s, -1)
    return out if own is None else out + probs[..., t:] * own.values
