"""Rows: every key that a batch may carry, what a mask or an attention bias may know of tokens, and who sees whom.

A batch is a flat dict of arrays with a leading axis B, so that examples are stacked, microbatches cut and devices
filled without knowing what it holds. Its keys are declared here; any other is an error. In an encoder-decoder the
encoder reads the same keys under `encoder/`: `encoder/tokens`, `encoder/segments` and so on. Where several heads learn
at once, targets and weights stand under the name of their head: `nsp/targets`, `nsp/weights`.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lm.core.component import components
from lm.core.errors import UserError, nearest

Array = jax.Array
Batch = dict[str, Array]
HIDDEN = -1e30  # finite: a row that sees nothing stays finite


# What a model reads: int32 [B, S] unless noted, and all optional except tokens.
MODEL_KEYS = {
    "tokens": "ids",
    "positions": "position in the order of reading, which masks compare; from 0 in each segment",
    "segments": "number of the document within a packed row, from 1; 0 is padding, which nobody sees",
    "prefix": "bool: part of a prefix that all of the row sees",
    "order": "rank in an order of prediction; ~rank for a query that asks for the token of that rank",
    "global": "1 where a token sees, and is seen by, all of its segment",
    "text_position": "position in the text, where that differs from the order of reading",
    "span": "position within a span that is filled in, from 1; 0 outside",
    "length": "tokens of the whole text, where only part of it is read and rotations depend on the whole",
    "types": "token type: which of two texts a token belongs to",
    "tasks": "task of the row",
    "span_left": "index of the token before the hidden span that a token is in",
    "span_right": "index of the token after it",
    "span_index": "position within that span, from 0",
    "row": "[B] number of the row in the whole batch, which keys its dropout",
    "source": "[B] number of the source that the row is of, where a run has several",
}
OF_ROW = ("row", "source")  # of both sides of a pair
# What the loss reads and the model never sees.
OF_A_HEAD = {
    "targets": "ids to predict: [B, S], or fewer, which are those of the last positions; or a label of each row, [B]",
    "predicted": "[B, P] positions of targets and weights [B, P], where they are not the last",
    "weights": "float32, shaped as targets; 0 where nothing is predicted",
    "total": "[B] sum of the weights of the whole batch, of which these rows may be a part: `with_totals` adds it",
}
LOSS_KEYS = OF_A_HEAD | {
    "bytes": "[B] bytes of text that the row's targets cover",
    "group": "[B] number of the objective of a mixture that the row is of",
    "reset": "[B] 1 where the row does not continue the previous batch, so that its memory is cleared",
}
ENCODER = "encoder/"
# `ctx.rows` holds the model's keys. Cross-attention finds a memory there under its name: its states [B, T, D] as
# "encoder", its tokens as "encoder/positions", "encoder/segments" ...


def reads(tree: Any) -> set[str]:
    """Keys that parts of a component tree declare in `reads`, a class attribute: those without which they do nothing,
    and keys of their own, such as further tables of an embedding."""
    return {key for part in components(tree) for key in getattr(part, "reads", ())}


def check_keys(batch: Mapping[str, Any], own: Collection[str] = (), encoder: bool = False) -> None:
    """Raise `UserError` for an unknown key. `own`: keys that the model `reads`; `encoder`: whether it has one."""
    known = {*MODEL_KEYS, *own}
    known |= {ENCODER + name for name in known} if encoder else set()
    for name in batch:
        if name not in known and name not in LOSS_KEYS and name.rpartition("/")[2] not in OF_A_HEAD:
            raise UserError(f"key {name!r} of a batch is unknown{nearest(name, known | LOSS_KEYS.keys())}")


def weights_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a batch by the name of their head, "" for that of a model with one."""
    return {k.rpartition("/")[0]: v for k, v in batch.items() if k.rpartition("/")[2] == "weights"}


def tokens_read(batch: Mapping[str, Any]) -> Any:
    """How many tokens of a batch a model reads, padding aside: of an encoder-decoder on both sides, and of every text
    that has a name of its own."""
    return sum((value > 0).sum() for key, value in batch.items() if key.rpartition("/")[2] == "segments")


def with_totals(batch: Batch) -> Batch:
    """A whole batch, which may be cut into parts, with the `total` of each named head: losses of several heads are
    divided each by its own."""
    sums = {name: w.astype(jnp.float32).sum() for name, w in weights_of(batch).items() if name}
    return batch | {f"{name}/total": jnp.full(batch["tokens"].shape[:1], total) for name, total in sums.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a mask or an attention bias may know of a run of tokens, each [B, S], as `MODEL_KEYS` describes; None where
    it does not apply."""

    positions: Array
    segments: Array | None = None
    prefix: Array | None = None
    order: Array | None = None
    globals: Array | None = None  # the rows "global"
    text_position: Array | None = None  # where that differs from `positions`
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


_OPTIONAL = {field.name: field.name for field in dataclasses.fields(Tokens)[1:]} | {"globals": "global"}


class Separated(NamedTuple):
    """A mask in parts that a kernel can ask for block by block: a query sees the keys of its own piece at the distances
    that are `near`, and those that are shown to all.

    near: key position - query position, integers of any shape -> bool; None: at any distance. Operators alone, so that
        kernels may call it with NumPy's arrays as well;
    pieces: numbers [B, S] from 0 of the pieces into which texts are cut; None: into none;
    shown: which keys all queries of their text see, bool [B, T], or None where tokens do not say; None: none."""

    near: Callable[[Any], Any] | None
    pieces: Callable[[Tokens], Array] | None = None
    shown: Callable[[Tokens], Array | None] | None = None

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        """As `Mask.allowed`."""
        ok = jnp.ones((1, 1, 1), bool)
        if self.near is not None:
            ok = self.near(k.positions[:, None, :] - q.positions[:, :, None])
        if self.pieces is not None:
            ok &= self.pieces(q)[:, :, None] == self.pieces(k)[:, None, :]
        shown = self.shown(k) if self.shown is not None else None
        return ok if shown is None else ok | shown[:, None, :]


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

    def separated(self) -> Separated | None:
        """The same in parts; None where it has none."""


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
