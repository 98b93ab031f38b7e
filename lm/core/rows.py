"""Rows: every key that a batch may carry, what a mask or an attention bias may know of tokens, and who sees whom.

A batch is a flat dict of arrays, each with a leading axis B: so it can be cut into microbatches, put on devices and
stacked from examples without anyone knowing what is in it. Its keys are declared here, and no others are accepted. Of
an encoder-decoder, what the encoder reads stands under `encoder/`: `encoder/tokens`, `encoder/segments` and so on.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import components
from lm.core.errors import UserError, nearest

Array = jax.Array
Batch = dict[str, Array]
HIDDEN = -1e30  # finite: a row that sees nothing stays finite


# What a model reads of its rows, int32 [B, S] where nothing else is said. All but tokens may be missing.
READ = {
    "tokens": "ids",
    "positions": "place in the order of reading, by which masks hide what is ahead; from 0 in each segment",
    "segments": "the document within a packed row, from 1; 0 is padding, which nobody sees",
    "prefix": "bool: part of a prefix that all of the row sees",
    "order": "place in an order of prediction; ~place for a query that asks for that place's token",
    "global": "1 where a token sees, and is seen by, all of its segment",
    "place": "where the token stands in the text, if that is not the order of reading",
    "span": "place within a span that is filled in, from 1; 0 outside",
    "length": "tokens of the whole text, where only a part of it is read and rotations depend on all",
    "types": "token types: which of two texts a token is of",
    "tasks": "the task that a row is of",
    "span_left": "index of the token before the hidden span that a token is in",
    "span_right": "index of the token behind it",
    "span_place": "a token's place within that span, from 0",
    "row": "[B] the row's number in the whole batch, by which dropout is drawn",
}
# What a loss reads, and no model sees.
ASKED = {
    "targets": "ids to predict: [B, S], or of the last places where they are fewer",
    "weights": "float32, the targets' shape: what each counts for; 0 where nothing is predicted",
    "bytes": "[B] bytes of text that the targets of a row cover",
    "reset": "[B] 1 where a row does not go on from the batch before: what was remembered is of elsewhere",
}
ENCODER = "encoder/"
# `ctx.rows` holds what is READ, and of each memory that cross-attention reads, such as "encoder", its states under
# that name [B, T, D] and its tokens' rows under "encoder/positions", "encoder/segments" ...


def reads(tree: Any) -> set[str]:
    """The keys beyond tokens, positions and segments that parts of a component tree name in their `reads`: some make
    up keys of their own, such as the tables of an embedding."""
    return {key for part in components(tree) for key in getattr(part, "reads", ())}


def check_keys(batch: Mapping[str, Any], own: Collection[str] = (), encoder: bool = False) -> None:
    """Raise `UserError` for an unknown key. `own`: keys that the model `reads`; `encoder`: whether it has one."""
    known = {*READ, *own}
    known |= {ENCODER + name for name in known} if encoder else set()
    for name in batch:
        if name not in known and name not in ASKED:
            raise UserError(f"key {name!r} of a batch is unknown{nearest(name, known | ASKED.keys())}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a mask or an attention bias may know of a run of tokens, each [B, S], as READ says; None where it does not
    apply."""

    positions: Array
    segments: Array | None = None
    prefix: Array | None = None
    order: Array | None = None
    globals: Array | None = None  # the rows "global"
    text_position: Array | None = None  # the rows "place"
    span: Array | None = None
    length: Array | None = None

    @classmethod
    def of(cls, rows: Mapping[str, Array], prefix: str = "") -> "Tokens":
        """The tokens that `ctx.rows` stand for, or those of a memory ("encoder/")."""
        known = {name: rows.get(prefix + key) for name, key in _OPTIONAL.items()}
        return cls(rows[f"{prefix}positions"], **known)

    @property
    def text_positions(self) -> Array:
        """What embeddings and rotations count as positions."""
        return self.positions if self.text_position is None else self.text_position

    def __getitem__(self, index: slice) -> "Tokens":
        return jax.tree.map(lambda x: x[:, index], self)


_OPTIONAL = {field.name: field.name for field in dataclasses.fields(Tokens)[1:]} | {
    "globals": "global",
    "text_position": "place",
}


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


def visible(mask: Mask, q: Tokens, k: Tokens, extra: int = 0) -> Array:
    """bool [B, S, T]: allowed by the mask, and in the same segment (1 where only one side has segments). Of the last
    `extra` keys the mask is not asked."""
    ok = mask.allowed(q, k)
    if extra:
        ok |= jnp.arange(k.positions.shape[1]) >= k.positions.shape[1] - extra
    if q.segments is None and k.segments is None:
        return ok
    q_segments = jnp.ones_like(q.positions) if q.segments is None else q.segments
    k_segments = jnp.ones_like(k.positions) if k.segments is None else k.segments
    return ok & (q_segments[:, :, None] == k_segments[:, None, :])
