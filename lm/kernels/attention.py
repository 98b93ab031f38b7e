"""Softmax attention: a plain reference, and a blocked form that skips keys which the mask hides altogether.

Shapes: B batch, H query heads, G key/value heads (H a multiple of G), S queries, T keys, K key size, V value size.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.core.rows import HIDDEN, Mask, Tokens, visible

Array = jax.Array


def reference(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask,
    q_tokens: Tokens,
    k_tokens: Tokens,
    scale: float,
    bias: Array | None = None,
    cap: float | None = None,
    sink: Array | None = None,
    free: int = 0,
    on_probs: Callable[[Array], Array] = lambda p: p,
) -> Array:
    """softmax(scale * q k^T + bias) v over the visible keys. Scores and softmax in float32. With `cap` scores s become
    cap * tanh(s / cap); `sink` [H] is the score of a further key, whose value is zero; the last `free` keys are seen
    whatever the mask.

    q [B,H,S,K], k [B,G,T,K], v [B,G,T,V], bias broadcastable to [B,H,S,T] -> [B,H,S,V]. `on_probs` sees (and may
    replace) the probabilities [B,H,S,T]: dropout and records."""
    b, h, s, _ = q.shape
    g, t = k.shape[1], k.shape[2]
    grouped = q.reshape(b, g, h // g, s, -1)
    scores = jnp.einsum("bgrsk,bgtk->bgrst", grouped, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(b, h, s, t) * scale
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    scores = cap * jnp.tanh(scores / cap) if cap else scores
    scores = jnp.where(visible(mask, q_tokens, k_tokens, free)[:, None], scores, HIDDEN)
    if sink is not None:
        scores = jnp.concatenate([scores, jnp.broadcast_to(sink[:, None, None], (b, h, s, 1))], axis=-1)
    probs = on_probs(jax.nn.softmax(scores, axis=-1)[..., :t]).astype(v.dtype)
    out = jnp.einsum("bgrst,bgtv->bgrsv", probs.reshape(b, g, h // g, s, t), v)
    return out.reshape(b, h, s, -1)


class Block(NamedTuple):
    """Queries [start, stop) and the keys within the mask's band around them, [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def blocks_of(mask: Mask, s: int, block: int = 128, most: int = 8) -> list[Block]:
    """Blocks of `block` queries, or at most `most` larger ones, with the keys that each may see."""
    block = max(block, -(-s // most))
    low, high = mask.band()
    return [
        Block(
            start,
            min(start + block, s),
            0 if low is None else max(0, start + low),
            s if high is None else min(s, min(start + block, s) + high),
        )
        for start in range(0, s, block)
    ]


def blocked(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask,
    q_tokens: Tokens,
    k_tokens: Tokens,
    scale: float,
    block: int = 128,
    most: int = 8,
) -> Array:
    """As `reference`, for self-attention whose i-th key is the i-th query's token: each block of queries meets only
    the keys within the mask's band. At most `most` blocks, so that the program stays small.

    No probabilities are kept: the gradient makes each block's again from two figures a query (Dao et al. 2022, arXiv
    2205.14135), which costs less than writing them out and reading them back."""
    grouped = q.reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])  # [B, G, H / G, S, K]
    blocks = tuple(blocks_of(mask, q.shape[2], block, most))
    return _blocked(mask, blocks, scale, grouped, k, v, q_tokens, k_tokens).reshape(*q.shape[:3], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _blocked(
    mask: Mask,
    blocks: tuple[Block, ...],
    scale: float,
    q: Array,
    k: Array,
    v: Array,
    q_tokens: Tokens,
    k_tokens: Tokens,
) -> Array:
    return _blocked_forward(mask, blocks, scale, q, k, v, q_tokens, k_tokens)[0]


def _blocked_forward(
    mask: Mask,
    blocks: tuple[Block, ...],
    scale: float,
    q: Array,
    k: Array,
    v: Array,
    q_tokens: Tokens,
    k_tokens: Tokens,
) -> tuple[Array, tuple]:
    outs, tops, sums = [], [], []
    for b in blocks:
        scores = _scores(mask, b, scale, q, k, q_tokens, k_tokens)
        top = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        outs.append((_heads(weights.astype(v.dtype), v[:, :, b.first : b.last]) / total).astype(v.dtype))
        tops.append(top)
        sums.append(total)
    out, top, total = (jnp.concatenate(parts, axis=3) for parts in (outs, tops, sums))
    return out, (q, k, v, q_tokens, k_tokens, out, top, total)


def _blocked_backward(mask: Mask, blocks: tuple[Block, ...], scale: float, saved: tuple, d_out: Array) -> tuple:
    q, k, v, q_tokens, k_tokens, out, top, total = saved
    # d scores = probs * (d probs - this), as the derivative of a softmax is
    common = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1, keepdims=True)
    d_q, d_k, d_v = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for b in blocks:
        own, seen = slice(b.start, b.stop), slice(b.first, b.last)
        scores = _scores(mask, b, scale, q, k, q_tokens, k_tokens)
        probs = jnp.exp(scores - top[:, :, :, own]) / total[:, :, :, own]
        d_own = d_out[:, :, :, own]
        d_probs = jnp.einsum("bgrsv,bgtv->bgrst", d_own, v[:, :, seen], preferred_element_type=jnp.float32)
        d_scores = (probs * (d_probs - common[:, :, :, own]) * scale).astype(q.dtype)
        d_q.append(_heads(d_scores, k[:, :, seen]).astype(q.dtype))
        d_k = d_k.at[:, :, seen].add(_keys(d_scores, q[:, :, :, own]))
        d_v = d_v.at[:, :, seen].add(_keys(probs.astype(v.dtype), d_own))
    return jnp.concatenate(d_q, axis=3), d_k.astype(k.dtype), d_v.astype(v.dtype), None, None


_blocked.defvjp(_blocked_forward, _blocked_backward)


def _scores(mask: Mask, b: Block, scale: float, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens) -> Array:
    """float32 [B, G, H / G, block, keys]"""
    own, seen = slice(b.start, b.stop), slice(b.first, b.last)
    scores = jnp.einsum("bgrsk,bgtk->bgrst", q[:, :, :, own], k[:, :, seen], preferred_element_type=jnp.float32)
    return jnp.where(visible(mask, q_tokens[own], k_tokens[seen])[:, None, None], scores * scale, HIDDEN)


def _heads(weights: Array, values: Array) -> Array:
    """Weighted sums of keys' values, for each query: float32 [B, G, H / G, S, V]."""
    return jnp.einsum("bgrst,bgtv->bgrsv", weights, values, preferred_element_type=jnp.float32)


def _keys(weights: Array, values: Array) -> Array:
    """Weighted sums of queries' values, for each key: float32 [B, G, T, V]."""
    return jnp.einsum("bgrst,bgrsv->bgtv", weights, values, preferred_element_type=jnp.float32)
