"""The one way in which layers attend: by the kernel that execution chooses."""

import dataclasses

import jax

from lm.core.ctx import Ctx, dropout, tap
from lm.core.rows import Tokens
from lm.kernels.attention.select import select
from lm.kernels.attention.spec import AttentionSpec, Bias, Own

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
    """q [B, H, S, d], k [B, K, T, d], v [B, K, T, w] -> [B, H, S, w], as `lm.kernels.attention.spec.Attend` says.

    Probabilities are dropped out at that `rate` in training, and handed out as "probs" where ctx records them."""
    read = (ctx.key is not None and rate > 0) or "probs" in ctx.record

    def on_probs(probs: Array) -> Array:
        return dropout(tap(aux, ctx, "probs", probs), rate, ctx, "probs")

    spec = dataclasses.replace(spec, probs=read)
    kernel = select(spec, q, k, v, ctx.execution.attention)
    change = on_probs if read else None
    return kernel(q, k, v, spec, q_tokens, k_tokens, bias=bias, sinks=sinks, own=own, on_probs=change)
