"""Multi-head, grouped-query and multi-query attention."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout, tap
from lm.core.errors import UserError, nearest
from lm.core.param import Initializer, Normal, Param, Tree, stack
from lm.core.rows import Tokens
from lm.kernels import attention as kernel
from lm.model.attention_bias import AttentionBias
from lm.model.kv_sources import CacheShape, KVSource, SelfKV, row_tokens
from lm.model.layers import ZEROS, Norm, linear, linear_spec
from lm.model.masks import Causal, MaskKind
from lm.model.positions import Learned
from lm.model.rotary import Rotary, Rotary2D
from lm.model.special.summaries import Gathered, Summaries

Array = jax.Array
NORM_OVER = ("head", "each", "whole")


class Keys(NamedTuple):
    """Keys k [B, G, T, K], their values v [B, G, T, V], and what they stand for."""

    k: Array
    v: Array
    tokens: Tokens

    def with_more(self, more: "Keys") -> "Keys":
        """These and, behind them, `more`, which have segments; of their tokens as much as is known of `more`."""
        names = [f.name for f in dataclasses.fields(Tokens) if getattr(more.tokens, f.name) is not None]
        known = Tokens(**{name: getattr(self.tokens, name) for name in names})
        if known.segments is None:
            known = dataclasses.replace(known, segments=jnp.ones_like(known.positions))
        tokens = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), known, more.tokens)
        k, v = (jnp.concatenate(pair, axis=2) for pair in ((self.k, more.k), (self.v, more.v)))
        return Keys(k, v, tokens)


@component
class Attention:
    """Softmax attention (Vaswani et al. 2017, arXiv 1706.03762); with `kv_heads` < heads grouped-query (Ainslie et al.
    2023, 2305.13245), with 1 multi-query (Shazeer 2019, 1911.02150).

    Maps x [B, S, d] to [B, S, d]. `source` says where keys and values come from (own inputs, encoder, segment memory),
    `query` is a table of positions that stand in for the queries' inputs (PanGu-alpha's query layer, Zeng et al. 2021,
    2104.12369), `biases` which of q, k, v, o have one. `scale` defaults to head_dim ** -0.5; `by_layer` divides it by
    the layer's number, from 1 (GPT-2 of Mistral's Stanford CRFM). `clip` bounds queries, keys and values (MPT), `cap`
    the scores by cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118); `sinks` adds a learned score per head to each softmax
    for which nothing is read (GPT-OSS; Xiao et al. 2023, 2309.17453).

    Norms of queries and keys act on each head with one gain for all ("head"; Henry et al. 2020, 2010.04245), on each
    with its own ("each"), or on all heads at once ("whole", OLMo 2), before rotation or, with `norm_rotated`, after it.
    `inner_norm` acts on what the heads give, before the output projection (sub-LN: Magneto, 2210.06423). `summaries`
    adds keys that stand for some of the own inputs, of whole texts only (LongT5, Longformer)."""

    heads: int
    head_dim: int
    kv_heads: int | None = None
    mask: MaskKind = Causal()
    rotary: Rotary | Rotary2D | None = None
    terms: tuple[AttentionBias, ...] = ()
    source: KVSource = SelfKV()
    query: Learned | None = None
    biases: tuple[str, ...] = ()
    scale: float | None = None
    by_layer: bool = False
    clip: float | None = None
    cap: float | None = None
    sinks: bool = False
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    norm_over: str = "head"
    norm_rotated: bool = False
    inner_norm: Norm | None = None
    summaries: Summaries | Gathered | None = None
    dropout: float = 0.0
    init: Initializer = Normal()
    q_init: Initializer | None = None  # default: as the others
    out_init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.kv < 1 or self.heads % self.kv:
            raise UserError(f"heads={self.heads} is no multiple of kv_heads={self.kv}: change one of them")
        if self.norm_over not in NORM_OVER:
            raise UserError(f"norm_over={self.norm_over!r} is unknown{nearest(self.norm_over, NORM_OVER)}")
        if self.norm_rotated and self.norm_over != "head":
            raise UserError(f"norm_over={self.norm_over!r} cannot be norm_rotated: only norm_over='head' can")

    @property
    def _norms(self) -> dict[str, Norm | None]:
        return {"q": self.q_norm, "k": self.k_norm}

    @property
    def kv(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    def spec(self, d: int) -> Tree:
        wide, narrow = self.heads * self.head_dim, self.kv * self.head_dim
        read = self.source.width or d
        spec = {
            "q": linear_spec((d, wide), ("embed", "heads"), "q" in self.biases, self.q_init or self.init),
            "k": linear_spec((read, narrow), ("embed", "kv_heads"), "k" in self.biases, self.init),
            "v": linear_spec((read, narrow), ("embed", "kv_heads"), "v" in self.biases, self.init),
            "o": linear_spec((wide, d), ("heads", "embed"), "o" in self.biases, self.out_init),
            "terms": {str(i): t.spec(d, self.heads, self.head_dim) for i, t in enumerate(self.terms)},
        }
        for name, norm, heads in (("q_norm", self.q_norm, self.heads), ("k_norm", self.k_norm, self.kv)):
            if norm:
                one = norm.spec(heads * self.head_dim if self.norm_over == "whole" else self.head_dim)
                spec[name] = stack(one, heads, "heads") if self.norm_over == "each" else one
        spec |= {"sinks": Param((self.heads,), ("heads",), ZEROS, "bias")} if self.sinks else {}
        spec |= {"inner_norm": self.inner_norm.spec(wide)} if self.inner_norm else {}
        if self.summaries:
            spec["summaries"] = self.summaries.spec(d, self.heads, self.head_dim)
        return spec | ({"query": self.query.spec(d)} if self.query else {})

    def cache(self, d: int, shape: CacheShape) -> Tree:
        if self.summaries:
            raise UserError("summaries need the whole text and cannot be cached: use them in an encoder")
        return self.source.cache(d, (self.kv, self.head_dim, self.head_dim), shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        tokens = row_tokens(ctx)

        def heads(name: str, inputs: Array, tokens: Tokens) -> Array:
            y, norm, norm_p = linear(p[name], inputs), self._norms.get(name), p.get(f"{name}_norm")
            y = jnp.clip(y, -self.clip, self.clip) if self.clip else y
            y = norm(norm_p, y) if norm and self.norm_over == "whole" else y
            y = y.reshape(*y.shape[:2], -1, self.head_dim)
            early = norm is not None and self.norm_over != "whole" and not self.norm_rotated
            y = jnp.swapaxes(norm(norm_p, y) if norm and early else y, 1, 2)  # [B, heads, S, K]
            y = self.rotary(y, tokens, name == "k") if self.rotary and (name != "v" or self.rotary.values) else y
            return norm(norm_p, y) if norm and self.norm_rotated else y

        def project(inputs: Array, key_tokens: Tokens) -> tuple[Array, Array]:
            return heads("k", inputs, key_tokens), heads("v", inputs, key_tokens)

        inputs = self.query(p["query"], tokens.places, x.shape[-1], x.dtype) if self.query else x
        q = constrain(heads("q", inputs, tokens), ctx, "batch", "heads", "seq", None)
        q = q / (ctx.layer + 1) if self.by_layer else q
        k, v, key_tokens, new = self.source(project, x, ctx, cache)
        keys, more = Keys(k.astype(x.dtype), v.astype(x.dtype), key_tokens), None
        if self.summaries:
            found, found_tokens = self.summaries(p["summaries"], x, tokens)
            more = Keys(*project(found, found_tokens), found_tokens)
        y = self._attend(p, q, tokens, keys, more, ctx, aux, cache is None and self.source.aligned)
        y = jnp.swapaxes(y, 1, 2).reshape(*x.shape[:2], -1)
        y = self.inner_norm(p["inner_norm"], y) if self.inner_norm else y
        return constrain(linear(p["o"], y), ctx, "batch", "seq", "embed"), new

    def _attend(
        self, p: Tree, q: Array, tokens: Tokens, keys: Keys, more: Keys | None, ctx: Ctx, aux: dict, aligned: bool
    ) -> Array:
        """q [B, H, S, K] to [B, H, S, V]; `more` are keys of summaries."""
        scale = self.head_dim**-0.5 if self.scale is None else self.scale
        whole = (ctx.key is None or self.dropout == 0) and "probs" not in ctx.record
        banded = whole and aligned and ctx.execution.blocked_attention and self.mask.band() != (None, None)
        if banded and not (self.terms or self.cap or self.sinks or more):
            k, v, key_tokens = keys
            return kernel.blocked(q, k, v, mask=self.mask, q_tokens=tokens, k_tokens=key_tokens, scale=scale)
        if not banded or not all(getattr(term, "pairwise", False) for term in self.terms):
            return self._scored(p, q, tokens, keys, more, scale, ctx, aux)
        outs = []
        for b in kernel.blocks_of(self.mask, q.shape[2]):
            own, seen = slice(b.start, b.stop), slice(b.first, b.last)
            near = Keys(keys.k[:, :, seen], keys.v[:, :, seen], keys.tokens[seen])
            outs.append(self._scored(p, q[:, :, own], tokens[own], near, more, scale, ctx, aux))
        return jnp.concatenate(outs, axis=2)

    def _scored(
        self, p: Tree, q: Array, tokens: Tokens, keys: Keys, more: Keys | None, scale: float, ctx: Ctx, aux: dict
    ) -> Array:
        """All queries to all keys, with the terms of their scores."""
        bias = None
        for i, term in enumerate(self.terms):
            k = self._for_all_heads(keys.k)
            added = term(p["terms"][str(i)], q, k, tokens, keys.tokens, ctx, scale).astype(jnp.float32)
            bias = added if bias is None else bias + added
        if self.summaries and more:
            k = self._for_all_heads(more.k)
            added = self.summaries.scores(p["summaries"], q, k, tokens, more.tokens, ctx, scale).astype(jnp.float32)
            near = jnp.broadcast_to(0.0 if bias is None else bias, (*q.shape[:3], keys.k.shape[2]))
            bias = jnp.concatenate([near, jnp.broadcast_to(added, (*q.shape[:3], more.k.shape[2]))], axis=3)
            keys = keys.with_more(more)
        return kernel.reference(
            q,
            keys.k,
            keys.v,
            mask=self.mask,
            q_tokens=tokens,
            k_tokens=keys.tokens,
            scale=scale,
            bias=bias,
            cap=self.cap,
            sink=p["sinks"] if self.sinks else None,
            free=more.k.shape[2] if more else 0,
            on_probs=lambda probs: dropout(tap(aux, ctx, "probs", probs), self.dropout, ctx, "probs"),
        )

    def _for_all_heads(self, k: Array) -> Array:
        return jnp.repeat(k, self.heads // self.kv, axis=1)
