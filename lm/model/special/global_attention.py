"""Attention in which some tokens, the global ones, see all others and are seen by all."""

import dataclasses

import jax
import jax.numpy as jnp

from lm.core.component import component, renamed
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.rows import Tokens
from lm.model.attention import Attention
from lm.model.cache import CacheShape
from lm.model.kv_sources import CrossKV
from lm.model.masks import Either, Except, GlobalMask
from lm.model.special.summaries import GlobalKV

Array = jax.Array
CONTEXT = "context"  # rows that global tokens read


@component(was=("Anchored",), upgrade=renamed(most="max_global"))
class GlobalAttention:
    """Longformer's attention (Beltagy et al. 2020, arXiv 2004.05150), x [B, S, D] -> [B, S, D]. Global tokens are those
    marked in the rows `global`. An encoder's: nothing is cached.

    local: of all other tokens: they see what its mask allows, and the global ones;
    anchors: of the global tokens, with projections of its own; its output map may be tied to that of `local`;
    max_global: how many of a row's first global tokens count, others being as if they were not marked; the cost is then
        that of the mask's band and of so many tokens more. None: all count, at the cost of two full attentions (where a
        batch has no rows `global`, of the band alone)."""

    local: Attention
    anchors: Attention
    max_global: int | None = None

    def __post_init__(self) -> None:
        if self.max_global is not None and self.max_global < 1:
            raise UserError(
                f"max_global={self.max_global} global tokens of a row must be at least 1; for any number leave it out"
            )

    def spec(self, d: int) -> Tree:
        """That of `local`, with `anchors` beside it."""
        return self.local.spec(d) | {"anchors": self.anchors.spec(d)}

    def cache(self, d: int, shape: CacheShape) -> None:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: None, aux: dict) -> tuple[Array, None]:
        if "global" not in ctx.rows:
            return self.local(p, x, ctx, None, aux)
        if self.max_global:
            return self._by_some(p, x, ctx, GlobalKV(self.max_global), aux), None
        local = dataclasses.replace(self.local, mask=Either((self.local.mask, GlobalMask())))
        y, _ = local(p, x, ctx, None, aux)
        by_global, _ = self.anchors(p["anchors"], x, ctx.at("anchors"), None, aux.setdefault("anchors", {}))
        return jnp.where((ctx.rows["global"] > 0)[..., None], by_global, y), None

    def _by_some(self, p: Tree, x: Array, ctx: Ctx, source: GlobalKV, aux: dict) -> Array:
        """With M = max_global tokens gathered: no scores [S, S] are made, by neither attention."""
        marks = (ctx.rows["global"] > 0).astype(jnp.int32)
        marks *= jnp.cumsum(marks, axis=1) <= source.max_global
        ctx = ctx.replace(rows=ctx.rows | {"global": marks})
        # The band must not show the global keys again: they stand behind it.
        local = dataclasses.replace(self.local, mask=Except(self.local.mask, GlobalMask()), source=source)
        y, _ = local(p, x, ctx, None, aux)
        # Global tokens ask from where they were gathered, [B, M, D]; the row's tokens are their context.
        asking, tokens = source.gathered(x, Tokens.of(ctx.rows))
        rows = {name: ctx.rows[name] for name in ("row", "positions", "segments") if name in ctx.rows}
        seen = {f"{CONTEXT}/{name}": value for name, value in rows.items()} | {CONTEXT: x}
        own = rows | {"positions": tokens.positions, "segments": tokens.segments} | seen
        anchors = dataclasses.replace(self.anchors, source=CrossKV(CONTEXT))
        inner = ctx.replace(rows=own).at("anchors")
        by_global, _ = anchors(p["anchors"], asking, inner, None, aux.setdefault("anchors", {}))
        # Scatter back; rows with fewer than M keep there what `local` found.
        at, chosen = source.indices(Tokens.of(ctx.rows))
        kept = jnp.where(chosen[..., None], by_global, jnp.take_along_axis(y, at[..., None], axis=1))
        return y.at[jnp.arange(len(x))[:, None], at].set(kept)
