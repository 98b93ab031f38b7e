"""Summaries: keys beside those of a query's own neighbours, which stand for blocks of tokens or for chosen ones."""

import dataclasses

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.rows import Tokens
from lm.model.attention_bias import BucketedBias
from lm.model.layers import Norm

Array = jax.Array


@component
class Summaries:
    """For each block of `size` tokens the norm of the sum of their inputs, which all queries of the segment attend to
    whatever their mask (LongT5's transient global attention, Guo et al. 2021, arXiv 2112.07916). `bias` is that of the
    distance in blocks. Tokens behind a segment's last whole block belong to that one; a segment shorter than a block
    has no summary. Positions must be consecutive within a segment."""

    size: int
    norm: Norm
    bias: BucketedBias

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"summaries of size={self.size} tokens stand for nothing: size must be at least 1")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {"norm": self.norm.spec(d), "bias": self.bias.spec(d, heads, head_dim)}

    def __call__(self, p: Tree, x: Array, tokens: Tokens) -> tuple[Array, Tokens]:
        """x [B, S, d] -> summaries [B, M, d], and what they stand for: the number of a block within its segment is its
        position. M is S / size, rounded down; where a row has fewer blocks, the rest is in segment 0."""
        segments = _segments(tokens)
        ends = (tokens.positions % self.size == self.size - 1) & (segments > 0)
        places = jnp.where(ends, jnp.cumsum(ends, axis=1) - 1, -1)  # of the blocks within the row
        at = (places[:, :, None] == jnp.arange(x.shape[1] // self.size)).astype(jnp.int32)  # [B, S, M]
        numbers, found_in = (jnp.einsum("bs,bsm->bm", of, at) for of in (tokens.positions // self.size, segments))
        found = Tokens(numbers, found_in)
        member = (segments[:, :, None] == found_in[:, None, :]) & (segments > 0)[:, :, None]
        member &= self.blocks(tokens, found)[:, :, None] == found.positions[:, None, :]
        total = jnp.einsum("bsm,bsd->bmd", member.astype(x.dtype), x, preferred_element_type=jnp.float32)
        return self.norm(p["norm"], total).astype(x.dtype), found

    def blocks(self, tokens: Tokens, found: Tokens) -> Array:
        """Number of each token's block within its segment, int32 [B, S]; -1 where there is none."""
        whole = jnp.sum(_segments(tokens)[:, :, None] == _segments(found)[:, None, :], axis=2)
        return jnp.minimum(tokens.positions // self.size, whole - 1)

    def scores(self, p: Tree, q: Array, k: Array, tokens: Tokens, found: Tokens, ctx: Ctx, scale: float) -> Array:
        """The bias of each query and summary, [B, H, S, M]."""
        tokens = dataclasses.replace(tokens, positions=self.blocks(tokens, found))
        return self.bias(p["bias"], q, k, tokens, found, ctx, scale)


@component
class Gathered:
    """The first `most` tokens of a row that are marked as anchors, which all queries of the segment attend to whatever
    their mask. A mask that shows them too would count them twice."""

    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UserError(f"most={self.most} anchors of a row must be at least 1")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def __call__(self, p: Tree, x: Array, tokens: Tokens) -> tuple[Array, Tokens]:
        """x [B, S, d] -> theirs [B, most, d], and where they stand; places that are left over are in segment 0."""
        at, marked = self.places(tokens)
        found = jax.tree.map(lambda t: jnp.take_along_axis(t, at, axis=1), tokens)
        segments = jnp.where(marked, jnp.take_along_axis(_segments(tokens), at, axis=1), 0)
        return jnp.take_along_axis(x, at[..., None], axis=1), dataclasses.replace(found, segments=segments)

    def places(self, tokens: Tokens) -> tuple[Array, Array]:
        """Their indices [B, most], and which of these are any: rows may have fewer."""
        marks = jnp.zeros_like(tokens.positions) if tokens.globals is None else tokens.globals
        at = jnp.argsort(marks <= 0, axis=1, stable=True)[:, : self.most]
        return at, jnp.take_along_axis(marks, at, axis=1) > 0

    def scores(self, p: Tree, q: Array, k: Array, tokens: Tokens, found: Tokens, ctx: Ctx, scale: float) -> Array:
        """Nothing is added."""
        return jnp.zeros((), jnp.float32)


def _segments(tokens: Tokens) -> Array:
    return jnp.ones_like(tokens.positions) if tokens.segments is None else tokens.segments
