"""Heads that give labels: to each token, or to each row."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Initializer, Normal, Tree
from lm.model.heads.protocol import ROW_LABELS, TOKEN_LABELS, HeadLoss, LossTerms, label_loss
from lm.model.layers import Norm, activation, linear, linear_spec

Array = jax.Array
POOLING = ("first", "last", "end", "mean")


@component(was=("TokenScores",))
class TokenClassifier:
    """`outputs` scores for each token: tags, starts and ends of answers, or with `activation`, behind a dense layer,
    whether a token was replaced (ELECTRA, Clark et al. 2020, arXiv 2003.10555)."""

    predicts: ClassVar[str] = TOKEN_LABELS

    outputs: int
    activation: str | None = None
    norm: Norm | None = None  # of the dense layer's outputs
    dense_bias: bool = True
    bias: bool = True
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        _check_dense(self)

    def spec(self, d: int) -> Tree:
        return _dense_spec(self, d) | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., D] -> float32 scores [..., outputs]."""
        return linear(p["out"], _dense(self, p, x)).astype(jnp.float32)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return label_loss(self(p, x, ctx), targets, weights, terms)


@component(was=("RowScores",))
class SequenceClassifier:
    """`outputs` scores for each row, from the state of one token: its first real one, its last, or the last where the
    ids `row` are `end` (with "encoder/tokens" those that the encoder reads: T5, BART); or from the "mean" of all. With
    `activation` behind a dense layer, which is BERT's pooler; without outputs the pooled state itself is the result.
    Padding (segment 0) is passed over."""

    predicts: ClassVar[str] = ROW_LABELS

    outputs: int | None = None
    at: str = "first"
    end: int | None = None
    row: str = "tokens"
    activation: str | None = None
    norm: Norm | None = None  # of the dense layer's outputs
    dense_bias: bool = True
    bias: bool = True
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        _check_dense(self)
        if self.at not in POOLING:
            raise UserError(f"at={self.at!r} of a head is unknown{nearest(self.at, POOLING)}")
        if (self.at == "end") != (self.end is not None):
            raise UserError(f"a head at={self.at!r} has end={self.end}: give `end`, a token's id, with at='end' only")

    def spec(self, d: int) -> Tree:
        dense = _dense_spec(self, d)
        if self.outputs is None:
            return dense
        return dense | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, D] -> float32 scores [B, outputs], or [B, D]."""
        length = x.shape[1]
        index = jnp.broadcast_to(jnp.arange(length), x.shape[:2])
        real = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        if self.at == "end":
            if self.row not in ctx.rows:
                raise UserError(f"a head looks for its end in the rows {self.row!r}{nearest(self.row, ctx.rows)}")
            real &= ctx.rows[self.row] == self.end
        if self.at == "mean":
            share = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
            state = jnp.einsum("bs,bsd->bd", share, x.astype(jnp.float32)).astype(x.dtype)
        else:
            index_read = jnp.min(jnp.where(real, index, length - 1), axis=1)
            if self.at != "first":
                index_read = jnp.max(jnp.where(real, index, 0), axis=1)
            state = jnp.take_along_axis(x, index_read[:, None, None], axis=1)[:, 0]
        state = _dense(self, p, state)
        return (state if self.outputs is None else linear(p["out"], state)).astype(jnp.float32)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return label_loss(self(p, x, ctx), targets, weights, terms)


@component(was=("WithFirst",))
class FirstTokenFeature:
    """Scores of each token beside its row's first one: `scores` reads norm(x + x_first), x [B, S, D] (DeBERTa v3 finds
    replaced tokens so: He et al. 2021, arXiv 2111.09543, and the published code)."""

    predicts: ClassVar[str] = TOKEN_LABELS

    scores: TokenClassifier
    norm: Norm

    def spec(self, d: int) -> Tree:
        return {"sum_norm": self.norm.spec(d), "scores": self.scores.spec(d)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, D] -> float32 scores [B, S, outputs]."""
        first = SequenceClassifier()({}, x, ctx).astype(x.dtype)
        return self.scores(p["scores"], self.norm(p["sum_norm"], x + first[:, None]), ctx)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return label_loss(self(p, x, ctx), targets, weights, terms)


def _check_dense(head: TokenClassifier | SequenceClassifier) -> None:
    if head.activation is None and (head.norm or not head.dense_bias):
        raise UserError("a head without `activation` has no dense layer: set it, or neither norm nor dense_bias")


def _dense_spec(head: TokenClassifier | SequenceClassifier, d: int) -> Tree:
    if head.activation is None:
        return {}
    spec = {"dense": linear_spec((d, d), ("embed", "embed"), head.dense_bias, head.init)}
    return spec | ({"norm": head.norm.spec(d)} if head.norm else {})


def _dense(head: TokenClassifier | SequenceClassifier, p: Tree, x: Array) -> Array:
    """x [..., D] -> [..., D]"""
    x = activation(head.activation)(linear(p["dense"], x)) if head.activation else x
    return head.norm(p["norm"], x) if head.norm else x
