"""Conditional computation: all tokens take a light branch, and those that a learned router picks a heavy one besides
(CoLT5, Ainslie et al. 2023, arXiv 2303.09752).

Shapes: B batch, S tokens of a row, R of them routed, D model width. Tokens of segment 0 are padding: they are never
routed, and a row's share is counted without them. Documents packed into a row compete for its share.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import dot
from lm.core.param import Initializer, Normal, Param, Tree
from lm.core.rows import HIDDEN
from lm.model.attention import Attention
from lm.model.cache import CacheShape
from lm.model.kv_sources import CrossKV
from lm.model.mlp import MLP, GatedMLP

Array = jax.Array


class Routed(NamedTuple):
    """Routed tokens: their indices in the row, their weights and, as a row may have fewer, which there are: [B, R]."""

    indices: Array
    weights: Array
    chosen: Array

    def of(self, rows: Array) -> Array:
        """Those entries of rows [B, S, ...]."""
        return jax.vmap(lambda row, at: row[at])(rows, self.indices)

    def spread(self, y: Array, length: int) -> Array:
        """y [B, R, D], weighted, back in the rows it came from, 0 elsewhere: [B, S, D]."""
        y = y * self.weights[..., None].astype(y.dtype)
        return jax.vmap(lambda row, at: jnp.zeros((length, y.shape[-1]), y.dtype).at[at].add(row))(y, self.indices)


@component
class SoftTopK:
    """Routes one in `every` tokens, at least one: those with the highest scores s_i = x_i . u.

    Their weights are in [0, 1] and, over all tokens of the row, add up to k, their number: exp((s_i + a + b_i) /
    epsilon) after `steps` steps of coordinate descent on a = epsilon ln k - epsilon ln sum_i exp((s_i + b_i) / epsilon)
    and b_i = min(-s_i - a, 0), from b = -s on (Lei et al. 2023, arXiv 2304.04947). `slack`: this many times as many
    tokens are routed (CoLT5 trains with 9/8)."""

    every: int = 16
    epsilon: float = 1.0
    steps: int = 50
    slack: float = 1.0
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.every < 1 or self.steps < 1 or self.slack < 1 or self.epsilon <= 0:
            raise UserError(
                f"a router with every={self.every}, steps={self.steps}, slack={self.slack}, epsilon={self.epsilon}: "
                "the first three must be at least 1, the last above 0"
            )

    def spec(self, d: int) -> Tree:
        return {"u": Param((d, 1), ("embed", None), self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Routed:
        """x [B, S, D] -> the tokens it routes."""
        length = x.shape[1]
        real = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        s = dot(x.astype(jnp.float32), p["u"])[..., 0]
        count = real.sum(axis=1, keepdims=True)
        k = jnp.maximum(count // self.every, 1)
        weights = self.weights(s, real, k.astype(jnp.float32))
        many = min(int(max(length // self.every, 1) * self.slack), length)
        _, indices = jax.lax.top_k(jnp.where(real, s, HIDDEN), many)
        chosen = jnp.arange(many) < jnp.minimum(jnp.floor(k * self.slack), count)
        return Routed(indices, jnp.where(chosen, jnp.take_along_axis(weights, indices, axis=1), 0.0), chosen)

    def weights(self, s: Array, real: Array, k: Array) -> Array:
        """Weights of tokens with scores s [B, S], of which k [B, 1] real ones are wanted."""

        def step(b: Array, _: None) -> tuple[Array, Array]:
            total = jax.nn.logsumexp(jnp.where(real, (s + b) / self.epsilon, HIDDEN), axis=1, keepdims=True)
            a = self.epsilon * (jnp.log(k) - total)
            return jnp.minimum(-s - a, 0.0), a

        b, a = jax.lax.scan(step, -s, None, length=self.steps)
        return jnp.exp((s + a[-1] + b) / self.epsilon)


@component
class ConditionalMLP:
    """light(x_i) + w_i heavy(x_i), the second for routed tokens only (section 3.2)."""

    light: MLP | GatedMLP
    heavy: MLP | GatedMLP
    router: SoftTopK = SoftTopK()

    def spec(self, d: int) -> Tree:
        return {"light": self.light.spec(d), "heavy": self.heavy.spec(d), "router": self.router.spec(d)}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        raise UserError(_UNCACHED)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        routed = self.router(p["router"], x, ctx)
        y, _ = self.light(p["light"], x, ctx.at("light"), None, aux.setdefault("light", {}))
        heavy, _ = self.heavy(p["heavy"], routed.of(x), ctx.at("heavy"), None, aux.setdefault("heavy", {}))
        return y + routed.spread(heavy, x.shape[1]), cache


@component
class ConditionalAttention:
    """light(x_i, x) + w_i heavy(x_i, v x): all tokens attend locally, and routed queries to routed keys, which a router
    of their own picks and weights by v (section 3.3). `heavy` must read the rows "routed" (`CrossKV("routed")`)."""

    light: Attention
    heavy: Attention
    queries: SoftTopK = SoftTopK()
    keys: SoftTopK = SoftTopK(every=8)

    def __post_init__(self) -> None:
        if self.heavy.source != CrossKV("routed"):
            raise UserError(f"the heavy branch reads {self.heavy.source}: give it source=CrossKV('routed')")

    def spec(self, d: int) -> Tree:
        branches = {"light": self.light.spec(d), "heavy": self.heavy.spec(d)}
        return branches | {"queries": self.queries.spec(d), "keys": self.keys.spec(d)}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        raise UserError(_UNCACHED)

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        queries, keys = self.queries(p["queries"], x, ctx), self.keys(p["keys"], x, ctx)
        y, _ = self.light(p["light"], x, ctx.at("light"), None, aux.setdefault("light", {}))
        rows = {name: row for name, row in ctx.rows.items() if name == "row"}
        rows["routed"] = keys.of(x) * keys.weights[..., None].astype(x.dtype)
        segments = ctx.rows.get("segments", jnp.ones(x.shape[:2], jnp.int32))
        for prefix, routed in (("", queries), ("routed/", keys)):
            rows[f"{prefix}positions"] = routed.of(ctx.rows["positions"])
            rows[f"{prefix}segments"] = jnp.where(routed.chosen, routed.of(segments), 0)
        inner = ctx.replace(rows=rows).at("heavy")
        heavy, _ = self.heavy(p["heavy"], queries.of(x), inner, None, aux.setdefault("heavy", {}))
        return y + queries.spread(heavy, x.shape[1]), cache


_UNCACHED = "routers look at the whole text and cannot decode token by token: use them in an encoder"
