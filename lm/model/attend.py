"""The one way in which layers attend: by the kernel that execution chooses."""

import dataclasses
from typing import Any

import jax

from lm.core.ctx import Ctx, constrain, dropout, tap
from lm.core.remat import named
from lm.core.rows import Tokens
from lm.kernels.attention.select import select
from lm.kernels.attention.spec import AttentionSpec, Bias, Own
from lm.kernels.place import place_of
from lm.parallel.context import AttentionCall, attend_over_context

Array = jax.Array


def attend(
    q: Array,
    k: Array,
    v: Array,
    spec: AttentionSpec,
    q_tokens: Tokens,
    k_tokens: Tokens,
    ctx: Ctx,
    aux: dict,
    *,
    rate: float = 0.0,
    bias: Bias | None = None,
    sinks: Array | None = None,
    own: Own | None = None,
) -> Array:
    """q [B, H, S, d], k [B, K, T, d], v [B, K, T, w] -> [B, H, S, w], as `lm.kernels.attention.spec.Attend` says, on
    however many devices the tokens lie.

    Probabilities are dropped out at that `rate` in training, and handed out as "probs" where ctx records them."""
    read = (ctx.key is not None and rate > 0) or "probs" in ctx.record

    def on_probs(probs: Array) -> Array:
        return dropout(tap(aux, ctx, "probs", probs), rate, ctx, "probs")

    def local(a: AttentionCall, ctx: Ctx) -> Array:
        # Of tokens in zig-zag order no band holds for indices.
        spec, place = dataclasses.replace(a.spec, aligned=a.spec.aligned and not ctx.zigzag), place_of(ctx)
        kernel = select(spec, a.q, a.k, a.v, place, ctx.execution.attention)
        given: dict[str, Any] = {"bias": a.bias, "sinks": a.sinks, "own": a.own, "on_probs": on_probs if read else None}
        return kernel(a.q, a.k, a.v, spec, a.q_tokens, a.k_tokens, place=place, **given)

    packed = q_tokens.segments is not None or k_tokens.segments is not None
    spec = dataclasses.replace(spec, probs=read, packed=packed)
    q = named(constrain(q, ctx, "batch", "heads", "seq", None), "queries")
    k = named(constrain(k, ctx, "batch", "kv_heads", "seq", None), "keys")
    v = named(constrain(v, ctx, "batch", "kv_heads", "seq", None), "values")
    y = attend_over_context(AttentionCall(q, k, v, spec, q_tokens, k_tokens, bias, sinks, own), ctx, local)
    return named(constrain(y, ctx, "batch", "heads", "seq", None), "heads")
