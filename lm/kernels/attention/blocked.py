"""Attention by blocks of queries, each of which meets only the keys within the mask's band: what the mask hides
altogether is never computed. For self-attention without a cache whose positions are consecutive within a segment, so
that the band holds for indices."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.core.rows import HIDDEN, Mask, Tokens, visible
from lm.kernels.attention.reference import reference
from lm.kernels.attention.spec import AttentionSpec, Bias, OnProbs, Own
from lm.kernels.place import Place

Array = jax.Array

BLOCK = 128  # queries, at least
MOST_BLOCKS = 8  # each is traced by itself: longer rows get larger blocks, so that the program stays small


class QueryBlock(NamedTuple):
    """Queries [start, stop) and the keys within the mask's band around them, [first, last)."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def queries(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def keys(self) -> slice:
        return slice(self.first, self.last)


def blocks_of(mask: Mask, s: int, block: int = BLOCK, most: int = MOST_BLOCKS) -> tuple[QueryBlock, ...]:
    """Blocks of `block` queries, or at most `most` larger ones, with the keys that each may see."""
    block = max(block, -(-s // most))
    low, high = mask.band()
    return tuple(
        QueryBlock(
            start,
            min(start + block, s),
            0 if low is None else max(0, start + low),
            s if high is None else min(s, min(start + block, s) + high),
        )
        for start in range(0, s, block)
    )


# ---------------------------------------------------------------------------------------------------------------------
# With biases, caps, sinks and extra keys: the reference on each block.


def supports_bias(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> str | None:
    if spec.probs:
        return "probabilities are dropped out or recorded, which needs them all at once"
    if not spec.aligned:
        return "keys are not the queries' own tokens (a cache, or another text)"
    if spec.own:
        return "queries have keys of their own"
    if spec.mask.band() == (None, None):
        return f"{type(spec.mask).__name__} hides no band of keys"
    return "a bias needs all queries and keys at once" if spec.bias == "whole" else None


def blocked_bias(
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
    first_extra = k.shape[2] - spec.extra

    def one(block: QueryBlock) -> Array:
        def seen(x: Array, axis: int) -> Array:
            near = jax.lax.slice_in_dim(x, block.first, block.last, axis=axis)
            extra = jax.lax.slice_in_dim(x, first_extra, None, axis=axis)
            return jnp.concatenate([near, extra], axis=axis) if spec.extra else near

        return reference(
            q[:, :, block.queries],
            seen(k, 2),
            seen(v, 2),
            spec,
            q_tokens[block.queries],
            jax.tree.map(lambda x: seen(x, 1), k_tokens),
            bias=bias,
            place=place,
            sinks=sinks,
        )

    return jnp.concatenate([one(block) for block in blocks_of(spec.mask, q.shape[2])], axis=2)


# ---------------------------------------------------------------------------------------------------------------------
# With nothing but a mask: no probabilities are kept. The gradient makes each block's again from two figures a query
# (Dao et al. 2022, arXiv 2205.14135), which costs less than writing them out and reading them back.


def supports(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> str | None:
    if spec.bias or spec.cap or spec.sinks or spec.extra:
        return "its gradient knows of no bias, cap, sinks or extra keys"
    return supports_bias(spec, q, k, v, place)


def blocked(
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
    block: int = BLOCK,
    most: int = MOST_BLOCKS,
) -> Array:
    """See `Attend`. Of the shapes below, G is the number of heads that share a key head, H = K G."""
    grouped = q.reshape(q.shape[0], k.shape[1], -1, *q.shape[2:])  # [B, K, G, S, d]
    blocks = blocks_of(spec.mask, q.shape[2], block, most)
    return _blocked(spec.mask, blocks, spec.scale, grouped, k, v, q_tokens, k_tokens).reshape(*q.shape[:3], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _blocked(
    mask: Mask,
    blocks: tuple[QueryBlock, ...],
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
    blocks: tuple[QueryBlock, ...],
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
        outs.append((_sum_keys(weights.astype(v.dtype), v[:, :, b.keys]) / total).astype(v.dtype))
        tops.append(top)
        sums.append(total)
    out, top, total = (jnp.concatenate(parts, axis=3) for parts in (outs, tops, sums))
    return out, (q, k, v, q_tokens, k_tokens, out, top, total)


def _blocked_backward(mask: Mask, blocks: tuple[QueryBlock, ...], scale: float, saved: tuple, d_out: Array) -> tuple:
    q, k, v, q_tokens, k_tokens, out, top, total = saved
    # d scores = probs * (d probs - this), the derivative of a softmax
    common = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1, keepdims=True)
    d_q, d_k, d_v = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for b in blocks:
        scores = _scores(mask, b, scale, q, k, q_tokens, k_tokens)
        probs = jnp.exp(scores - top[:, :, :, b.queries]) / total[:, :, :, b.queries]
        d_own = d_out[:, :, :, b.queries]
        d_probs = jnp.einsum("bkgsw,bktw->bkgst", d_own, v[:, :, b.keys], preferred_element_type=jnp.float32)
        d_scores = (probs * (d_probs - common[:, :, :, b.queries]) * scale).astype(q.dtype)
        d_q.append(_sum_keys(d_scores, k[:, :, b.keys]).astype(q.dtype))
        d_k = d_k.at[:, :, b.keys].add(_sum_queries(d_scores, q[:, :, :, b.queries]))
        d_v = d_v.at[:, :, b.keys].add(_sum_queries(probs.astype(v.dtype), d_own))
    return jnp.concatenate(d_q, axis=3), d_k.astype(k.dtype), d_v.astype(v.dtype), None, None


_blocked.defvjp(_blocked_forward, _blocked_backward)


def _scores(mask: Mask, b: QueryBlock, scale: float, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens) -> Array:
    """float32 [B, K, G, queries of the block, keys of the block]"""
    own, near = q[:, :, :, b.queries], k[:, :, b.keys]
    scores = jnp.einsum("bkgsd,bktd->bkgst", own, near, preferred_element_type=jnp.float32)
    seen = visible(mask, q_tokens[b.queries], k_tokens[b.keys])[:, None, None]
    return jnp.where(seen, scores * scale, HIDDEN)


def _sum_keys(weights: Array, values: Array) -> Array:
    """For each query, what stands at its keys, weighted: float32 [B, K, G, S, w]."""
    return jnp.einsum("bkgst,bktw->bkgsw", weights, values, preferred_element_type=jnp.float32)


def _sum_queries(weights: Array, values: Array) -> Array:
    """For each key, what stands at its queries, weighted: float32 [B, K, T, w]."""
    return jnp.einsum("bkgst,bkgsw->bktw", weights, values, preferred_element_type=jnp.float32)
