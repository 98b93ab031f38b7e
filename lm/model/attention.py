"""Multi-head, grouped-query and multi-query attention.

Shapes: B batch, S queries, T keys, D model width, H heads, K key/value heads, d width of a head."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError, nearest
from lm.core.param import Initializer, Normal, Param, Tree, stack
from lm.core.rows import Tokens
from lm.kernels.attention.spec import AttentionSpec, Bias
from lm.model.attend import attend
from lm.model.attention_bias import AttentionBias
from lm.model.cache import CacheShape, KVShape
from lm.model.kv_sources import KV, KVSource, SelfKV
from lm.model.layers import ZEROS, Norm, linear, linear_spec
from lm.model.masks import Causal, MaskKind
from lm.model.order import any_order
from lm.model.rotary import Rotary, Rotary2D

Array = jax.Array
OVER = ("head", "each", "whole")


@component
class Projections:
    """The linear maps of attention: q, k and v from its inputs, o from what its heads give.

    biases: which of "q", "k", "v", "o" have one;
    clip: queries, keys and values are bounded to [-clip, clip] (MPT);
    init: initial weights of q, k, v;
    q_init: of q, where it differs (T5, whose scores are not scaled);
    v_init: of v, where it differs (DeepNorm);
    out_init: of o."""

    biases: tuple[str, ...] = ()
    clip: float | None = None
    init: Initializer = Normal()
    q_init: Initializer | None = None
    out_init: Initializer = Normal()
    v_init: Initializer | None = None


@component
class QKNorm:
    """Norms of queries and keys (Henry et al. 2020, arXiv 2010.04245).

    q, k: the norms; None: queries, or keys, stay as they are;
    over: "head", each head with one gain for all; "each", each with its own gain (StableLM 2, Command R+); "whole", all
        heads at once (OLMo 2);
    after_rotation: norms come after the rotary embedding, not before it; of "head" only;
    clip_after: what `Projections.clip` bounds are normed queries and keys (OLMoE); of "whole" only."""

    q: Norm | None = None
    k: Norm | None = None
    over: str = "head"
    after_rotation: bool = False
    clip_after: bool = False

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise UserError(f"over={self.over!r} of a QKNorm is unknown{nearest(self.over, OVER)}")
        if self.after_rotation and self.over != "head":
            raise UserError(f"over={self.over!r} cannot be after_rotation: only over='head' can")
        if self.clip_after and self.over != "whole":
            raise UserError(f"over={self.over!r} cannot be clip_after: only over='whole' can")

    def of(self, name: str) -> Norm | None:
        """The norm of "q", "k" or "v"."""
        return {"q": self.q, "k": self.k}.get(name)

    def spec(self, name: str, heads: int, head_dim: int) -> Tree:
        norm = self.of(name)
        if norm is None:
            return {}
        one = norm.spec(heads * head_dim if self.over == "whole" else head_dim)
        return {f"{name}_norm": stack(one, heads, "heads") if self.over == "each" else one}


@component
class Softmax:
    """What becomes of scores q k^T.

    scale: multiplies them; None: head_dim ** -0.5;
    cap: scaled scores s become cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118);
    sinks: each head has one more score, learned, for which nothing is read (GPT-OSS; Xiao et al. 2023, 2309.17453);
    by_layer: scores are divided by the layer's number, from 1 (GPT-2 of Mistral's Stanford CRFM)."""

    scale: float | None = None
    cap: float | None = None
    sinks: bool = False
    by_layer: bool = False


_SOFTMAX = ("scale", "cap", "sinks", "by_layer")
_PROJECTIONS = ("biases", "clip", "init", "q_init", "out_init")
_QK_NORM = {"q_norm": "q", "k_norm": "k", "norm_over": "over", "norm_rotated": "after_rotation"}


def _regrouped(stored: Mapping[str, Any]) -> dict[str, Any]:
    """All of this once stood in `Attention` itself, and the query layer, summaries and inner norm besides."""
    now, old = dict(stored), set(stored)
    if "terms" in old:
        now["bias"] = now.pop("terms")
    for field, kind, knobs in (
        ("softmax", "Softmax", {k: k for k in _SOFTMAX}),
        ("projections", "Projections", {k: k for k in _PROJECTIONS}),
        ("qk_norm", "QKNorm", _QK_NORM),
    ):
        if found := {new: now.pop(k) for k, new in knobs.items() if k in old}:
            now[field] = {"type": kind, **found}
    if old & set(_QK_NORM) and not (now["qk_norm"].get("q") or now["qk_norm"].get("k")):
        now["qk_norm"] = None
    if (summaries := now.pop("summaries", None)) is not None:
        now["source"] = summaries  # they are sources of keys now, for the own inputs and what stands for some of them
    for field, kind, knob in (("inner_norm", "SubNormAttention", "norm"), ("query", "QueryAttention", "query")):
        if (value := now.pop(field, None)) is not None:
            now = {"type": kind, "attention": now, knob: value}
    return now


@component(upgrade=_regrouped)
class Attention:
    """Softmax attention, x [B, S, D] -> [B, S, D] (Vaswani et al. 2017, arXiv 1706.03762).

    heads: of queries;
    head_dim: width of each;
    kv_heads: of keys and values; None: as many as of queries; fewer: grouped-query (Ainslie et al. 2023, 2305.13245),
        one: multi-query attention (Shazeer 2019, 1911.02150);
    mask: which keys a query sees within its text;
    rotary: turns queries and keys by their positions;
    bias: what is added to scores;
    source: where keys and values come from: the own inputs, an encoder, a segment memory;
    softmax, qk_norm, projections: see there;
    dropout: rate of probabilities."""

    heads: int
    head_dim: int
    kv_heads: int | None = None
    mask: MaskKind = Causal()
    rotary: Rotary | Rotary2D | None = None
    bias: tuple[AttentionBias, ...] = ()
    source: KVSource = SelfKV()
    softmax: Softmax = Softmax()
    qk_norm: QKNorm | None = None
    projections: Projections = Projections()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kv < 1 or self.heads % self.kv:
            raise UserError(f"heads={self.heads} is no multiple of kv_heads={self.kv}: change one of them")

    @property
    def kv(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def scale(self) -> float:
        """Of scores."""
        return self.head_dim**-0.5 if self.softmax.scale is None else self.softmax.scale

    @property
    def any_order(self) -> bool:
        turned = self.rotary is None or self.rotary.any_order
        return turned and any_order(self.source) and all(b.pairwise for b in self.bias) and not self.dropout

    def spec(self, d: int) -> Tree:
        wide, narrow, maps = self.heads * self.head_dim, self.kv * self.head_dim, self.projections
        read = self.source.width or d
        spec = {
            "q": linear_spec((d, wide), ("embed", "heads"), "q" in maps.biases, maps.q_init or maps.init),
            "k": linear_spec((read, narrow), ("embed", "kv_heads"), "k" in maps.biases, maps.init),
            "v": linear_spec((read, narrow), ("embed", "kv_heads"), "v" in maps.biases, maps.v_init or maps.init),
            "o": linear_spec((wide, d), ("heads", "embed"), "o" in maps.biases, maps.out_init),
            "terms": {str(i): b.spec(d, self.heads, self.head_dim) for i, b in enumerate(self.bias)},
        }
        if self.qk_norm:
            spec |= self.qk_norm.spec("q", self.heads, self.head_dim) | self.qk_norm.spec("k", self.kv, self.head_dim)
        spec |= {"sinks": Param((self.heads,), ("heads",), ZEROS, "bias")} if self.softmax.sinks else {}
        return spec | self.source.extra_spec(d, self.heads, self.head_dim)

    def cache(self, d: int, shape: CacheShape) -> Any:
        return self.source.cache(d, KVShape(self.kv, self.head_dim, self.head_dim), shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        y, cache = self.read(p, x, x, ctx, cache, aux)
        return self.out(p, y, ctx), cache

    def read(self, p: Tree, queries: Array, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        """What the heads give, [B, S, H d], and the new cache. `queries` [B, S, D] are the inputs of queries, x those
        of keys and values."""
        tokens = Tokens.of(ctx.rows)
        q = self._projected("q", p, queries, tokens, ctx)
        q = q / (ctx.layer + 1) if self.softmax.by_layer else q
        kv = self.source(
            p,
            lambda of, at: (self._projected("k", p, of, at, ctx), self._projected("v", p, of, at, ctx)),
            x,
            ctx,
            cache,
        )
        kv = kv._replace(k=kv.k.astype(x.dtype), v=kv.v.astype(x.dtype))
        bias = self._bias(p, q, kv, ctx)
        spec = AttentionSpec(
            self.mask,
            self.scale,
            cap=self.softmax.cap,
            bias=None if bias is None else "pairwise" if all(b.pairwise for b in self.bias) else "whole",
            sinks=self.softmax.sinks,
            aligned=kv.aligned,
            extra=kv.extra,
        )
        y = attend(
            q,
            kv.k,
            kv.v,
            spec,
            tokens,
            kv.tokens,
            ctx,
            aux,
            rate=self.dropout,
            bias=bias,
            sinks=p["sinks"] if self.softmax.sinks else None,
        )
        return jnp.swapaxes(y, 1, 2).reshape(*x.shape[:2], -1), kv.cache

    def out(self, p: Tree, y: Array, ctx: Ctx) -> Array:
        """[B, S, H d] -> [B, S, D]"""
        return constrain(linear(p["o"], y), ctx, "batch", "seq", "embed")

    def _projected(self, name: str, p: Tree, x: Array, tokens: Tokens, ctx: Ctx) -> Array:
        """Queries, keys or values ("q", "k", "v") of inputs x [B, S, D] that are these tokens: [B, heads, S, d]."""
        y, clip = linear(p[name], x), self.projections.clip
        y = constrain(y, ctx, "batch", "seq", "heads" if name == "q" else "kv_heads")
        qk, norm_p = self.qk_norm or QKNorm(), p.get(f"{name}_norm")
        norm = qk.of(name)
        y = norm(norm_p, y) if norm and qk.clip_after else y
        y = jnp.clip(y, -clip, clip) if clip else y
        y = norm(norm_p, y) if norm and qk.over == "whole" and not qk.clip_after else y
        y = y.reshape(*y.shape[:2], -1, self.head_dim)
        # Before heads and tokens change places: a gain for each head is [heads, d].
        y = norm(norm_p, y) if norm and qk.over != "whole" and not qk.after_rotation else y
        y = jnp.swapaxes(y, 1, 2)
        y = self.rotary(y, tokens, name == "k") if self.rotary and (name != "v" or self.rotary.values) else y
        return norm(norm_p, y) if norm and qk.after_rotation else y

    def _bias(self, p: Tree, q: Array, kv: KV, ctx: Ctx) -> Bias | None:
        """What is added to scores; see `lm.kernels.attention.spec.Bias`."""
        if not (self.bias or kv.extra_bias):
            return None
        if all(b.pairwise for b in self.bias):
            # All that they read of ctx is what their stack computed.
            added = Partial(self._pairwise, p["terms"], ctx.replace(rows={}, key=None))
        else:
            keys = jnp.repeat(kv.k[:, :, : kv.k.shape[2] - kv.extra], self.heads // self.kv, axis=1)  # for each head
            added = Partial(self._added, p["terms"], ctx, q, keys)
        return functools.partial(self._with_extra, added, kv) if kv.extra else added

    def _pairwise(self, terms: Tree, ctx: Ctx, asking: Tokens, seen: Tokens) -> Array:
        """Of the queries `asking` with the keys `seen`, [B or 1, H or 1, s, t]: of q and k the shapes count."""
        b, s, t = *asking.positions.shape, seen.positions.shape[1]
        q, k = (jax.ShapeDtypeStruct((b, self.heads, n, self.head_dim), jnp.float32) for n in (s, t))
        return self._added(terms, ctx, q, k, asking, seen)

    def _added(self, terms: Tree, ctx: Ctx, q: Any, k: Any, asking: Tokens, seen: Tokens) -> Array:
        total = jnp.zeros((), jnp.float32)
        for i, bias in enumerate(self.bias):
            added = bias(terms[str(i)], q, k, asking, seen, ctx, self.scale).astype(jnp.float32)
            total = total + added if i else added
        return total

    def _with_extra(self, added: Bias, kv: KV, asking: Tokens, seen: Tokens) -> Array:
        """The same where the last of the keys are extra ones."""
        t = seen.positions.shape[1] - kv.extra
        shape = (asking.positions.shape[0], self.heads, asking.positions.shape[1])
        q = jax.ShapeDtypeStruct((*shape, self.head_dim), kv.k.dtype)
        extra = kv.extra_bias(q, asking).astype(jnp.float32) if kv.extra_bias else 0.0
        both = jnp.broadcast_to(added(asking, seen[:t]), (*shape, t)), jnp.broadcast_to(extra, (*shape, kv.extra))
        return jnp.concatenate(both, axis=3)
