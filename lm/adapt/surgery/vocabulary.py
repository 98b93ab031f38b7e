"""Rows for more tokens."""

import dataclasses
from typing import Literal, Self

import jax
import jax.numpy as jnp

from lm.core.component import component, with_knobs
from lm.core.errors import UserError
from lm.core.param import Param, Tree, flatten, initialize, map_paths
from lm.core.ranges import Count, CountOrNone
from lm.model.transformer import Model


@component
class GrowVocabulary:
    """A vocabulary of another size: rows are added behind those there are, in the token tables and in the head, tied or
    not. The old tokens keep their rows, and with them their ids.

    vocab: rows in all; 0: as many as there are, or else as the tokenizer has tokens;
    multiple: the number of rows is rounded up to a multiple of this (128 suits most hardware);
    rows: what new ones begin with: the "mean" of the old ones, so that a new token is at first as likely as an old one
        is on average (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"), or "fresh"
        initial values;
    shrink: whether `vocab` may be smaller than it was: rows at the end are cut off;
    tokens: how many the tokenizer has, which a run fills in."""

    vocab: CountOrNone = 0
    multiple: Count = 1
    rows: Literal["mean", "fresh"] = "mean"
    shrink: bool = False
    tokens: CountOrNone = 0

    def __post_init__(self) -> None:
        if self.rows not in ("mean", "fresh"):
            raise UserError(f"GrowVocabulary.rows={self.rows!r} must be mean or fresh")

    def for_tokenizer(self, tokens: int) -> Self:
        return dataclasses.replace(self, tokens=tokens)

    def model(self, model: Model) -> Model:
        if not (self.vocab or self.tokens):
            raise UserError("GrowVocabulary without `vocab` needs a tokenizer: give vocab, the number of rows")
        before, asked = model.vocab, self.vocab or max(self.tokens, model.vocab)
        now = -(-asked // self.multiple) * self.multiple
        if now < before and not self.shrink:
            raise UserError(
                f"GrowVocabulary to {now} would cut {before - now} rows off the vocabulary of {before}: "
                "give a larger vocab, or set shrink"
            )
        return with_knobs(model, lambda name, value: now if (name, value) == ("vocab", before) else value)

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        there = dict(flatten(params))

        def one(path: str, p: Param) -> jax.Array:
            x = there[path]
            if x.shape == p.shape:
                return x
            axis = p.axes.index("vocab")
            if (more := p.shape[axis] - x.shape[axis]) < 0:
                return jax.lax.slice_in_dim(x, 0, p.shape[axis], axis=axis)
            if self.rows == "fresh":
                whole = initialize(map_paths(lambda at, q: q if at == path else None, new.spec()), key)
                rows = jax.lax.slice_in_dim(jax.tree.leaves(whole)[0], x.shape[axis], p.shape[axis], axis=axis)
            else:
                rows = jnp.repeat(x.mean(axis, keepdims=True), more, axis)
            return jnp.concatenate([x, rows.astype(x.dtype)], axis)

        return map_paths(one, new.spec())
