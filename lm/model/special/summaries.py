"""Sources of keys beside those of a query's own neighbours: some that stand for blocks of tokens, or for chosen ones.

Shapes: B batch, S tokens, M blocks or chosen tokens, D model width, H heads."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component, renamed
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.rows import Tokens
from lm.model.attention_bias import BucketedBias
from lm.model.cache import CacheShape, KVCache, KVShape, known
from lm.model.kv_sources import KV, Project, SelfKV
from lm.model.layers import Norm

Array = jax.Array
_UNCACHED = "keys that stand for a whole text cannot be cached: use them in an encoder"


@component(was=("Summaries",))
class BlockSummaries:
    """The own inputs and, for each block of them, the norm of its sum, which all queries of the segment attend to
    whatever their mask (LongT5's transient global attention, Guo et al. 2021, arXiv 2112.07916). An encoder's: nothing
    is cached. Tokens behind a segment's last whole block belong to that one; a segment shorter than a block has no
    summary. Positions must be consecutive within a segment.

    size: tokens of a block;
    norm: of their sum;
    bias: that of the distance in blocks."""

    width: ClassVar[None] = None

    size: int
    norm: Norm
    bias: BucketedBias

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"summaries of size={self.size} tokens stand for nothing: size must be at least 1")

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"summaries": {"norm": self.norm.spec(d), "bias": self.bias.spec(d, heads, head_dim)}}

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> KVCache:
        raise UserError(_UNCACHED)

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: None) -> KV:
        tokens, p = Tokens.of(ctx.rows), p["summaries"]
        found, found_tokens = self.summarized(p, x, tokens)
        k, v = project(found, found_tokens)

        def bias(q: Array, of: Tokens) -> Array:
            of = dataclasses.replace(of, positions=self.blocks(of, found_tokens))
            return self.bias(p["bias"], q, k, of, found_tokens, ctx, 1.0)

        return SelfKV()(p, project, x, ctx, None).with_extra(k, v, found_tokens, bias)

    def summarized(self, p: Tree, x: Array, tokens: Tokens) -> tuple[Array, Tokens]:
        """x [B, S, D] -> summaries [B, M, D], and what they stand for: the number of a block within its segment is its
        position. M is S / size, rounded down; where a row has fewer blocks, the rest is in segment 0."""
        segments = known(tokens)[1]
        ends = (tokens.positions % self.size == self.size - 1) & (segments > 0)
        index = jnp.where(ends, jnp.cumsum(ends, axis=1) - 1, -1)  # of the blocks within the row
        at = (index[:, :, None] == jnp.arange(x.shape[1] // self.size)).astype(jnp.int32)  # [B, S, M]
        numbers, found_in = (jnp.einsum("bs,bsm->bm", of, at) for of in (tokens.positions // self.size, segments))
        found = Tokens(numbers, found_in)
        member = (segments[:, :, None] == found_in[:, None, :]) & (segments > 0)[:, :, None]
        member &= self.blocks(tokens, found)[:, :, None] == found.positions[:, None, :]
        total = jnp.einsum("bsm,bsd->bmd", member.astype(x.dtype), x, preferred_element_type=jnp.float32)
        return self.norm(p["norm"], total).astype(x.dtype), found

    def blocks(self, tokens: Tokens, found: Tokens) -> Array:
        """Number of each token's block within its segment, int32 [B, S]; -1 where there is none."""
        whole = jnp.sum(known(tokens)[1][:, :, None] == known(found)[1][:, None, :], axis=2)
        return jnp.minimum(tokens.positions // self.size, whole - 1)


@component(was=("Gathered",), upgrade=renamed(most="max_global"))
class GlobalKV:
    """The own inputs and, once more, the first `max_global` of a row's global tokens, which all queries of the segment
    attend to whatever their mask. A mask that shows them too would count them twice. An encoder's: nothing is
    cached."""

    width: ClassVar[None] = None

    max_global: int

    def __post_init__(self) -> None:
        if self.max_global < 1:
            raise UserError(f"max_global={self.max_global} global tokens of a row must be at least 1")

    def extra_spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def cache(self, d: int, kv: KVShape, shape: CacheShape) -> KVCache:
        raise UserError(_UNCACHED)

    def __call__(self, p: Tree, project: Project, x: Array, ctx: Ctx, cache: None) -> KV:
        found, tokens = self.gathered(x, Tokens.of(ctx.rows))
        return SelfKV()(p, project, x, ctx, None).with_extra(*project(found, tokens), tokens)

    def gathered(self, x: Array, tokens: Tokens) -> tuple[Array, Tokens]:
        """x [B, S, D] -> theirs [B, M, D], M = max_global, and what they are; what is left over is in segment 0."""
        at, chosen = self.indices(tokens)
        found = jax.tree.map(lambda t: jnp.take_along_axis(t, at, axis=1), tokens)
        segments = jnp.where(chosen, jnp.take_along_axis(known(tokens)[1], at, axis=1), 0)
        return jnp.take_along_axis(x, at[..., None], axis=1), dataclasses.replace(found, segments=segments)

    def indices(self, tokens: Tokens) -> tuple[Array, Array]:
        """Where they are in the row, int32 [B, M], and which of these there are: rows may have fewer."""
        marks = jnp.zeros_like(tokens.positions) if tokens.globals is None else tokens.globals
        at = jnp.argsort(marks <= 0, axis=1, stable=True)[:, : self.max_global]
        return at, jnp.take_along_axis(marks, at, axis=1) > 0
