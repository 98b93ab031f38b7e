"""Streams that predict further tokens beside the text itself (ProphetNet, Qi et al. 2020, arXiv 2001.04063).

Stream 0 is the text. At each of its places stand predictors besides, that of stream n for the n-th token from there on:
they read the text as far as they may, and themselves, and are read by none. The states of a stack are
[B, (1 + streams) S, D], stream after stream; what leaves the tower is [B, S, (1 + streams) D]."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component, renamed
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.rows import HIDDEN, Tokens
from lm.kernels.attention.spec import AttentionSpec, Own
from lm.model.attend import attend
from lm.model.attention_bias import BucketedBias
from lm.model.cache import CacheShape, KVCache, KVShape
from lm.model.embed import Embed
from lm.model.heads import HeadLoss, LMHead, LossTerms, NoHead
from lm.model.heads.protocol import vocabulary_loss
from lm.model.kv_sources import SelfKV
from lm.model.layers import linear, linear_spec
from lm.model.masks import Causal
from lm.model.stack import Stack

Array = jax.Array


@component(upgrade=renamed(farthest="max_distance"))
class StreamAttention:
    """Causal self-attention of all streams, x [B, (1 + streams) S, D] to the same.

    A predictor of the n-th token reads n - 1 tokens less of the text than its place would let it, but always the first.
    To scores are added, per head, as many values as there are buckets of distances (of `BucketedBias`), which a linear
    map makes of the reader's state; a predictor counts as standing one place further on. The cache is the text's KV
    cache."""

    heads: int
    head_dim: int
    streams: int = 2
    buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.0
    init: Initializer = Normal()
    out_init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        wide = self.heads * self.head_dim
        spec = {n: linear_spec((d, wide), ("embed", "heads"), True, self.init) for n in "qkv"}
        return spec | {
            "o": linear_spec((wide, d), ("heads", "embed"), True, self.out_init),
            "relative": linear_spec((d, self.buckets * self.heads), ("embed", "heads"), True, self.init),
        }

    def cache(self, d: int, shape: CacheShape) -> KVCache:
        return SelfKV().cache(d, KVShape(self.heads, self.head_dim, self.head_dim), shape)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        n, s = 1 + self.streams, x.shape[1] // (1 + self.streams)

        def heads(name: str, inputs: Array) -> Array:
            """[B, S of one or more streams, D] -> [B, H, the same, d]"""
            y = linear(p[name], inputs)
            return jnp.swapaxes(y.reshape(*y.shape[:2], self.heads, self.head_dim), 1, 2)

        text = {name: ctx.rows[name][:, :s] for name in ("positions", "segments") if name in ctx.rows}
        project = lambda inputs, _tokens: (heads("k", inputs), heads("v", inputs))  # noqa: E731
        kv = SelfKV()(p, project, x[:, :s], ctx.replace(rows=text), cache)
        q = constrain(heads("q", x), ctx, "batch", "heads", "seq", None) * self.head_dim**-0.5
        relative = linear(p["relative"], x).reshape(x.shape[0], n, s, self.buckets, self.heads)
        relative = jnp.moveaxis(relative, 4, 1).astype(jnp.float32)  # [B, H, streams, S, buckets]
        tokens = Tokens(text["positions"], text.get("segments"))
        bias = self._bias(relative, tokens, kv.tokens)

        # A predictor's own key, which no other query sees, stands at no distance; the text has none.
        own_k, own_v = (heads(name, x[:, s:]) for name in "kv")
        own = jnp.sum(q[:, :, s:] * own_k, axis=-1, dtype=jnp.float32)
        own = own + relative[:, :, 1:, :, 0].reshape(own.shape)
        own = jnp.pad(own, ((0, 0), (0, 0), (s, 0)), constant_values=HIDDEN)
        y = attend(
            q,
            kv.k.astype(x.dtype),
            kv.v.astype(x.dtype),
            AttentionSpec(Causal(), 1.0, bias="whole", own=True),
            jax.tree.map(lambda t: jnp.tile(t, (1, n)), tokens),
            kv.tokens,
            ctx,
            aux,
            rate=self.dropout,
            bias=lambda _queries, _keys: bias,
            own=Own(own, jnp.pad(own_v, ((0, 0), (0, 0), (s, 0), (0, 0)))),
        )
        y = jnp.swapaxes(y, 1, 2).reshape(*x.shape[:2], -1)
        return constrain(linear(p["o"], y), ctx, "batch", "seq", "embed"), kv.cache

    def _bias(self, relative: Array, tokens: Tokens, seen: Tokens) -> Array:
        """What is added to the scores of all streams' queries with the text's keys, [B, H, streams S, T]: what
        `relative` holds for their distance, and what hides a key that a predictor's place would let it see."""
        ahead, first = seen.positions[:, None, :] - tokens.positions[:, :, None], seen.positions[:, None, :] == 0
        bucket = BucketedBias(buckets=self.buckets, max_distance=self.max_distance).bucket
        at = jnp.stack([bucket(ahead)] + [bucket(ahead - 1)] * self.streams, axis=1)  # [B, streams, S, T]
        seen_by = [jnp.ones_like(ahead, bool)]
        seen_by += [(ahead <= -less) | first for less in range(self.streams)]
        found = jnp.take_along_axis(relative, jnp.broadcast_to(at[:, None], (*relative.shape[:4], at.shape[3])), axis=4)
        found = jnp.where(jnp.stack(seen_by, axis=1)[:, None], found, HIDDEN)
        return found.reshape(*found.shape[:2], -1, found.shape[4])


@component
class StreamTransformer:
    """A tower whose layers attend by `StreamAttention`: ids [B, S] to states [B, S, (1 + streams) D].

    Predictors start from a vector of their stream and the position one further on, normed as embeddings are. The last
    row of those vectors is the first stream's, as published."""

    d_model: int
    embed: Embed
    stack: Stack
    streams: int = 2
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        for block in self.stack.blocks():
            for name, part in block.parts:
                if isinstance(part, StreamAttention) and (n := part.streams) != self.streams:
                    raise UserError(f"{name} of a layer has streams={n}, its tower {self.streams}: make them equal")

    def spec(self) -> Tree:
        return {
            "embed": self.embed.spec(self.d_model),
            "streams": {"w": Param((self.streams, self.d_model), (None, "embed"), self.init)},
            "stack": self.stack.spec(self.d_model),
        }

    @property
    def width(self) -> int:
        """Of the states that come out."""
        return (1 + self.streams) * self.d_model

    def cache(self, shape: CacheShape) -> list:
        return self.stack.cache(self.d_model, shape)

    def __call__(
        self, p: Tree, ids: Array, ctx: Ctx, cache: Any, dtype: jax.typing.DTypeLike
    ) -> tuple[Array, Any, Tree]:
        d, positions, embed = self.d_model, ctx.rows["positions"], self.embed
        text = embed(p["embed"], ids, ctx.at("embed"), d, dtype)
        starts = take(p["streams"]["w"], (jnp.arange(self.streams) - 1) % self.streams, dtype)
        x = jnp.broadcast_to(starts[None, :, None], (ids.shape[0], self.streams, ids.shape[1], d))
        if embed.position:
            x = x + embed.position(p["embed"]["position"], positions + 1, d, dtype)[:, None]
        x = embed.norm(p["embed"]["norm"], x) if embed.norm else x
        x = dropout(x.reshape(ids.shape[0], -1, d), embed.dropout, ctx, "streams")
        rows = {name: jnp.tile(ctx.rows[name], (1, 1 + self.streams)) for name in ("segments",) if name in ctx.rows}
        rows["positions"] = jnp.concatenate([positions] + [positions + 1] * self.streams, axis=1)
        ctx = ctx.replace(rows=ctx.rows | rows)
        x, cache, aux = self.stack(p["stack"], jnp.concatenate([text, x], axis=1), ctx, cache)
        x = x.reshape(ids.shape[0], 1 + self.streams, ids.shape[1], d)
        return jnp.swapaxes(x, 1, 2).reshape(*ids.shape, -1), cache, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {"stack": self.stack.update(p["stack"], aux)}


@component
class StreamHead:
    """A head on the states of one stream, x [..., (1 + streams) D]; 1 predicts the next token."""

    head: LMHead | NoHead
    streams: int = 2
    stream: int = 1

    @property
    def predicts(self) -> str:
        return self.head.predicts

    def spec(self, d: int) -> Tree:
        return self.head.spec(d // (1 + self.streams))

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Any:
        return self.head(p, jnp.split(x, 1 + self.streams, axis=-1)[self.stream], ctx)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        """All predictors learn, each what stands next at its place; reported are those of the next token."""
        parts = jnp.split(x, 1 + self.streams, axis=-1)[1:]
        targets, weights = (jnp.tile(row, (1, self.streams)) for row in (targets, weights))
        joined = jnp.concatenate(parts, axis=1)  # [B, streams S, D]
        return vocabulary_loss(self.head, p, joined, targets, weights, ctx, terms, counted=x.shape[1])
