"""Attention in which some tokens, the anchors, see all others and are seen by all."""

import dataclasses

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.attention import Attention
from lm.model.kv_sources import CacheShape, CrossKV, row_tokens
from lm.model.masks import Either, Except, GlobalMask
from lm.model.special.summaries import Gathered

Array = jax.Array
CONTEXT = "context"  # rows that anchors read


@component(was=("Anchored",))
class GlobalAttention:
    """Longformer's attention (Beltagy et al. 2020, arXiv 2004.05150), x [B, S, d] -> [B, S, d]: tokens marked in the
    rows `global` ask by `anchors`, which has projections of its own, all others by `local`, which sees what its mask
    allows and the marked tokens besides. The output map of `anchors` may be tied to that of `local` (Longformer).

    With `most`, which is how many of a row's first marked tokens count (others are as if they were not marked), the
    cost is that of the mask's band and of `most` tokens more; without, that of two full attentions, but where a batch
    has no such rows. An encoder's: nothing is cached."""

    local: Attention
    anchors: Attention
    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UserError(f"most={self.most} anchors of a row must be at least 1; for any number leave it out")

    def spec(self, d: int) -> Tree:
        """That of `local`, with `anchors` beside it."""
        return self.local.spec(d) | {"anchors": self.anchors.spec(d)}

    def cache(self, d: int, shape: CacheShape) -> Tree:
        return None

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: Tree, aux: dict) -> tuple[Array, Tree]:
        if "global" not in ctx.rows:
            return self.local(p, x, ctx, None, aux)
        if self.most:
            return self._gathered(p, x, ctx, Gathered(self.most), aux), None
        local = dataclasses.replace(self.local, mask=Either((self.local.mask, GlobalMask())))
        y, _ = local(p, x, ctx, None, aux)
        by_anchors, _ = self.anchors(p["anchors"], x, ctx.at("anchors"), None, aux.setdefault("anchors", {}))
        return jnp.where((ctx.rows["global"] > 0)[..., None], by_anchors, y), None

    def _gathered(self, p: Tree, x: Array, ctx: Ctx, chosen: Gathered, aux: dict) -> Array:
        marks = (ctx.rows["global"] > 0).astype(jnp.int32)
        marks *= jnp.cumsum(marks, axis=1) <= chosen.most
        ctx = ctx.replace(rows=ctx.rows | {"global": marks})
        local = dataclasses.replace(self.local, mask=Except(self.local.mask, GlobalMask()), summaries=chosen)
        y, _ = local(p | {"summaries": {}}, x, ctx, None, aux)
        asking, tokens = chosen({}, x, row_tokens(ctx))
        rows = {name: ctx.rows[name] for name in ("row", "positions", "segments") if name in ctx.rows}
        seen = {f"{CONTEXT}/{name}": value for name, value in rows.items()} | {CONTEXT: x}
        own = rows | {"positions": tokens.positions, "segments": tokens.segments} | seen
        anchors = dataclasses.replace(self.anchors, source=CrossKV(CONTEXT))
        inner = ctx.replace(rows=own).at("anchors")
        by_anchors, _ = anchors(p["anchors"], asking, inner, None, aux.setdefault("anchors", {}))
        at, marked = chosen.places(row_tokens(ctx))
        kept = jnp.where(marked[..., None], by_anchors, jnp.take_along_axis(y, at[..., None], axis=1))
        return y.at[jnp.arange(len(x))[:, None], at].set(kept)
