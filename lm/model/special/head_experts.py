"""Mixture of attention heads.

Shapes: B batch, S queries, T keys, D model width, E experts, k choices per token, K heads of an expert, d width of a
head.
"""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, tap
from lm.core.errors import UserError
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.ranges import Count
from lm.core.rows import Tokens
from lm.kernels.attention.spec import AttentionSpec
from lm.model.attend import attend
from lm.model.cache import CacheShape, KVCache, KVShape
from lm.model.kv_sources import SelfKV
from lm.model.layers import ZEROS, linear, linear_spec
from lm.model.masks import Causal, MaskKind
from lm.model.moe.dispatch import Dropless, Experts
from lm.model.moe.expert_parallel import dispatched
from lm.model.moe.routers import Router, Routing
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary

Array = jax.Array


@component
class HeadExperts:
    """Self-attention whose heads are experts, x [B, S, D] -> [B, S, D] (mixture of attention heads, Zhang et al. 2022,
    arXiv 2210.05144). All share `heads` keys and values; each expert has as many queries of its own, and its own map of
    what they read. A token attends by the experts that the router chooses, whose results are added by its weights.

    Records the router's `RouterStats` in `aux`, and if asked its "router_logits" [B, S, E].

    experts: how many, E;
    heads: of each expert, K;
    head_dim: width of each;
    router: which experts a token attends by;
    mask: which keys a query sees within its text;
    rotary: turns queries and keys by their positions;
    bias: the sum has one;
    dropout: rate of probabilities;
    init: initial weights of queries, keys and values, out_init: of the experts' maps of what is read."""

    experts: Count
    heads: Count
    head_dim: Count
    router: Router = TopK(2, normalize=1.0)
    mask: MaskKind = Causal()
    rotary: Rotary | None = Rotary()
    bias: bool = True
    dropout: float = 0.0
    init: Initializer = Normal()
    out_init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.router.ahead or self.router.gives is not Routing:
            raise UserError(f"{type(self.router).__name__} cannot choose heads: give a router of a token's own choices")

    def spec(self, d: int) -> Tree:
        e, width = self.experts, self.heads * self.head_dim
        spec = {
            "router": self.router.spec(d, e),
            "experts": {
                "q": {"w": Param((e, d, width), ("expert", "embed", "heads"), self.init)},
                "o": {"w": Param((e, width, d), ("expert", "heads", "embed"), self.out_init)},
            },
            "k": linear_spec((d, width), ("embed", "kv_heads"), False, self.init),
            "v": linear_spec((d, width), ("embed", "kv_heads"), False, self.init),
        }
        return spec | ({"b": Param((d,), ("embed",), ZEROS, "bias")} if self.bias else {})

    def cache(self, d: int, shape: CacheShape) -> KVCache:
        return SelfKV().cache(d, KVShape(self.heads, self.head_dim, self.head_dim), shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        tokens, (b, s, d), size = Tokens.of(ctx.rows), x.shape, self.head_dim
        valid = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones((b, s), bool)
        routing = self.router(p["router"], x, valid, self.experts, ctx)
        assert isinstance(routing, Routing)  # `gives`
        if routing.logits is not None:
            tap(aux, ctx, "router_logits", routing.logits)
        aux["router"] = routing.stats
        k = routing.experts.shape[-1]

        def split(name: str, of: Array) -> Array:  # [B, K, T, d]
            return jnp.swapaxes(linear(p[name], of).reshape(b, -1, self.heads, size), 1, 2)

        def turned(y: Array, at: Tokens, key: bool) -> Array:
            return self.rotary(y, at, key) if self.rotary else y

        even = routing._replace(weights=jnp.ones_like(routing.weights))
        q = self._each(p["experts"]["q"], jnp.broadcast_to(x[:, :, None], (b, s, k, d)), even, ctx)
        # The queries that share a head of keys stand side by side.
        q = jnp.moveaxis(q.reshape(b, s, k, self.heads, size), (3, 2), (1, 2)).reshape(b, -1, s, size)
        q = turned(constrain(q, ctx, "batch", "heads", "seq", None), tokens, False)
        kv = SelfKV()(p, lambda of, at: (turned(split("k", of), at, True), split("v", of)), x, ctx, cache)
        spec = AttentionSpec(self.mask, size**-0.5, aligned=kv.aligned)
        keys, values = kv.k.astype(x.dtype), kv.v.astype(x.dtype)
        y = attend(q, keys, values, spec, tokens, kv.tokens, ctx, aux, rate=self.dropout)
        y = jnp.moveaxis(y.reshape(b, self.heads, k, s, size), (2, 1), (2, 3)).reshape(b, s, k, -1)
        y = self._each(p["experts"]["o"], y, routing, ctx).sum(axis=2)
        y = y + p["b"].astype(y.dtype) if self.bias else y
        return constrain(y, ctx, "batch", "seq", "embed"), kv.cache

    def _each(self, p: Tree, x: Array, routing: Routing, ctx: Ctx) -> Array:
        """Each choice x [B, S, k, in] by the linear map of its expert and its weight -> [B, S, k, out]. To the dispatch
        it is a token with one choice, so that experts may lie on several devices."""
        b, s, k, width = x.shape
        weights, experts, served = (v.reshape(b, s * k, 1) for v in (routing.weights, routing.experts, routing.valid))
        apart = routing._replace(weights=weights, experts=experts, valid=served, logits=None)
        maps = Experts(lambda p, x, ctx, cache, aux: (linear(p, x), cache), p, self.experts)
        y, _ = dispatched(Dropless(), maps, x.reshape(b, s * k, width), apart, ctx)
        return y.reshape(b, s, k, -1)

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {"router": self.router.update(p["router"], aux["router"])}
