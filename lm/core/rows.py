"""Rows of tokens, as every layer sees them: what a mask or an attention bias may know of them, and who sees whom."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

Array = jax.Array
HIDDEN = -1e30  # finite: a row that sees nothing stays finite


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a mask or a score term may know of a run of tokens, each [B, S]; None where it does not apply."""

    positions: Array  # int32; restarts in every segment
    segments: Array | None = None  # int32: the document within a packed row; 0 is padding or an empty cache cache
    prefix: Array | None = None  # bool: part of the bidirectional prefix
    order: Array | None = None  # int32: place in a factorisation order; ~place of a query for that place's token
    anchors: Array | None = None  # int32: 1 where a token is seen by all of its segment
    place: Array | None = None  # int32: where the token stands in the text, if not in the order of reading
    span: Array | None = None  # int32: place within a span that is filled in, from 1; 0 outside
    length: Array | None = None  # int32: tokens of the whole text that it belongs to, if more than what is here

    @property
    def places(self) -> Array:
        """What embeddings and rotations count as positions."""
        return self.positions if self.place is None else self.place

    def __getitem__(self, index: slice) -> "Tokens":
        return jax.tree.map(lambda x: x[:, index], self)


@runtime_checkable
class Mask(Protocol):
    """A description of which keys a query sees; never a [seq, seq] array made by the model."""

    @property
    def causal(self) -> bool:
        """Whether no query sees a key behind it in the text."""

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        """bool [B, S, T] (or with 1s), segments aside."""

    def band(self) -> tuple[int | None, int | None]:
        """Bounds of (key index - query index) outside which nothing is visible; None where unbounded."""


def visible(mask: Mask, q: Tokens, k: Tokens, free: int = 0) -> Array:
    """bool [B, S, T]: allowed by the mask, and in the same segment (1 where only one side has segments). Of the last
    `free` keys the mask is not asked."""
    ok = mask.allowed(q, k)
    if free:
        ok |= jnp.arange(k.positions.shape[1]) >= k.positions.shape[1] - free
    if q.segments is None and k.segments is None:
        return ok
    q_segments = jnp.ones_like(q.positions) if q.segments is None else q.segments
    k_segments = jnp.ones_like(k.positions) if k.segments is None else k.segments
    return ok & (q_segments[:, :, None] == k_segments[:, None, :])
