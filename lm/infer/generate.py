"""Continuing prompts token by token, with cached keys and values.

Prompts of different lengths share a batch: they are padded on the left, with segment 0, which no token attends to, so
that all rows write their next token at the same index of the cache.

Some models switch to another rotary table beyond some length, so their cached keys become stale when a text grows past
it (`LongScaling.reread`). The row is then read again from the start and its part of the cache replaced; other rows are
not affected.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import components
from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree, with_aliases
from lm.core.walk import Unrolled
from lm.infer.sampling import Sampler
from lm.model.cache import CacheShape, for_rows, rewind
from lm.model.kv_sources import SegmentMemory
from lm.model.rotary import LongScaling
from lm.model.special.resize import Resize
from lm.model.stack import LayerGroup
from lm.model.transformer import EncoderDecoder, Model

Array = jax.Array
Prompts = Sequence[np.ndarray]  # int[tokens] each
ENDED = -1  # yielded for a row that has ended


class Generator:
    """A model ready to continue prompts, as two compiled functions: one reads prompts, the other adds a token. (A third
    re-reads texts, for models that need it.)

    They are recompiled only for another number of rows, `max_new`, sampler, or bucket: the length of the longest prompt
    plus `max_new`, rounded up to a power of two of at least `least`. A chat that grows within its bucket compiles
    nothing. Holds a copy of the decoder's stacked parameters, see `unrolled`. `dtype` is that of the computation and
    the cache."""

    def __init__(
        self,
        model: Model,
        params: Tree,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        sharding: Sharding | None = None,
        least: int = 16,
    ) -> None:
        self.model, self.params = unrolled(model, params)
        self.dtype, self.least = dtype, least
        self._turns = turns(model)
        self._prefill, self._decode, self._reread = steps_of(self.model, self.dtype, sharding)

    def __call__(self, prompts: Prompts, **options: Any) -> list[np.ndarray]:
        """The continuations, int32[<= max_new] each, without prompt and end-of-text; options as of `stream`."""
        steps = list(self.stream(prompts, **options))
        rows = np.array(steps, np.int32).reshape(len(steps), len(prompts)).T
        return [row[row != ENDED] for row in rows]

    def stream(
        self,
        prompts: Prompts,
        *,
        max_new: int,
        sampler: Sampler = Sampler(),
        seed: int = 0,
        eos_id: int | tuple[int, ...] | None = None,
        first_row: int = 0,
        encoder: Prompts | None = None,
        last: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Yields the next token of every row, int32[B], as soon as it is sampled; `ENDED` for rows that have reached
        any of `eos_id`, which is not yielded itself. Stops after `max_new` tokens, or when all rows have ended.

        Draws are keyed by (seed, row, position), so a row's text depends neither on the rest of the batch nor on how
        much of it is prompt. Rows are numbered from `first_row`. An encoder-decoder reads `encoder` and continues
        `prompts`, which hold its start token. `last` replaces the `max_new`-th token, as some models force an
        end-of-text there.

        Raises `UserError` for prompts that are empty, hold ids outside the vocabulary, or exceed the model's positions
        together with `max_new`."""
        if max_new < 1:
            raise UserError(f"max_new={max_new} must be at least 1")
        if not len(prompts):
            return
        batch = padded_left("prompt", prompts, self.model.vocab, self.model.max_length, max_new, self.least)
        lengths = np.array([len(p) for p in prompts], np.int32)
        memory = self._memory(encoder, len(prompts))
        width = batch["tokens"].shape[1] + max_new
        shape = CacheShape(
            len(prompts), width, memory["encoder/tokens"].shape[1] if memory else 0, jnp.dtype(self.dtype)
        )
        rows = first_row + np.arange(len(prompts))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows)

        token, cache = self._prefill(self.params, batch | memory, keys, shape=shape, sampler=sampler.first)
        live, text = np.ones(len(prompts), bool), batch["tokens"]
        for i in range(max_new):
            drawn = token
            if i + 1 < max_new:  # dispatched before waiting for `drawn`, so that the device is never idle
                if (turning := np.isin(lengths + i, self._turns)).any():
                    anew = _anew(text, lengths + i, width)
                    cache = self._reread(self.params, cache, anew, turning)
                token, cache = self._decode(self.params, cache, drawn, lengths + i, keys, sampler=sampler)
            tokens = np.asarray(drawn) if last is None or i + 1 < max_new else np.full_like(drawn, last)
            text = np.concatenate([text, tokens[:, None]], axis=1) if self._turns else text
            live = live if eos_id is None else live & ~np.isin(tokens, eos_id)
            if not live.any():
                return
            yield np.where(live, tokens, ENDED)

    def cache_length(self, read: int, max_new: int) -> int:
        """The cache length compiled for a longest prompt of `read` tokens and `max_new` new ones."""
        return _bucket(read + max_new, self.model.max_length, self.least)

    def _memory(self, encoder: Prompts | None, rows: int) -> dict[str, np.ndarray]:
        if not isinstance(self.model, EncoderDecoder):
            if encoder is not None:
                raise UserError("this model has no encoder: put the text of `encoder` into the prompts")
            return {}
        if encoder is None or len(encoder) != rows:
            given = "none" if encoder is None else len(encoder)
            raise UserError(f"`encoder` holds {given}: give an encoder input for each of the {rows} prompts")
        embed = self.model.encoder.embed
        batch = padded_left("encoder input", encoder, embed.vocab, embed.max_length, 0)
        return {f"encoder/{name}": value for name, value in batch.items()}


class GeneratorSteps(NamedTuple):
    """The functions of a generator, jitted."""

    prefill: jax.stages.Wrapped  # (params, batch [B, S], keys [B], shape, sampler) -> tokens [B], cache
    decode: jax.stages.Wrapped  # (params, cache, tokens [B], positions [B], keys [B], sampler) -> tokens [B], cache
    reread: jax.stages.Wrapped  # (params, cache, batch [B, S], rows bool [B]) -> cache


def steps_of(model: Model, dtype: jax.typing.DTypeLike, sharding: Sharding | None = None) -> GeneratorSteps:
    """Of a model whose layers are `unrolled`. Caches are donated, shapes and samplers static."""
    ctx = Ctx(sharding=sharding, execution=Execution(walk=Unrolled()))

    def advance(params: Tree, batch: dict, cache: Tree, keys: Array, sampler: Sampler) -> tuple[Array, Tree]:
        """Read batch [B, S] and sample the next token of each row."""
        x, cache, _ = model.hidden(params, batch, ctx, cache, dtype)
        logits = model.logits(params, x[:, -1], ctx.at("head"))
        keys = jax.vmap(jax.random.fold_in)(keys, batch["positions"][:, -1] + 1)
        return sampler(keys, logits), cache

    def prefill(params: Tree, batch: dict, keys: Array, shape: CacheShape, sampler: Sampler) -> tuple[Array, Tree]:
        return advance(params, batch, model.cache(shape), keys, sampler)

    def decode(
        params: Tree, cache: Tree, token: Array, positions: Array, keys: Array, sampler: Sampler
    ) -> tuple[Array, Tree]:
        batch = {"tokens": token, "positions": positions, "segments": jnp.ones_like(token)}
        return advance(params, {k: v[:, None] for k, v in batch.items()}, cache, keys, sampler)

    def reread(params: Tree, cache: Tree, batch: dict, rows: Array) -> Tree:
        """The cache after these rows [B] have read batch [B, S] anew, which is part of texts of its "length"."""
        emptied = rewind(cache, 0)
        _, new, _ = model.hidden(params, batch, ctx, emptied, dtype)
        return for_rows(rows, new, cache)

    return GeneratorSteps(
        jax.jit(prefill, static_argnames=("shape", "sampler")),
        jax.jit(decode, static_argnames="sampler", donate_argnames="cache"),
        jax.jit(reread, donate_argnames="cache"),
    )


def turns(model: Model) -> list[int]:
    """Text lengths at which the model must re-read everything. Raises `UserError` for a model that cannot."""
    tower = model.tower
    found = {s.original for s in components(tower) if isinstance(s, LongScaling) and s.reread}
    if found and any(isinstance(source, SegmentMemory) for source in components(tower)):
        raise UserError("a segment memory cannot be read anew: set reread=False in this model's LongScaling")
    return sorted(found)


def unrolled(model: Model, params: Tree) -> tuple[Model, Tree]:
    """The same model with one layer group per decoder layer and ties resolved, and its parameters.

    Decoding reads every weight once per token. Slicing a layer out of stacked weights would copy it at every step:
    two thirds of a small model's time on a CPU."""
    name = "decoder" if isinstance(model, EncoderDecoder) else "body"
    params = with_aliases(params, model.ties)
    tower = getattr(model, name)
    segments: list[LayerGroup | Resize] = []
    own: Tree = {}
    for i, segment in enumerate(tower.stack.segments):
        p = params[name]["stack"][str(i)]
        for layer in [p] * segment.repeats if segment.tied else _layers(p, segment.repeats):
            own[str(len(segments))] = layer
            segments.append(dataclasses.replace(segment, repeats=1) if isinstance(segment, LayerGroup) else segment)
    stack = dataclasses.replace(tower.stack, segments=tuple(segments))
    model = dataclasses.replace(model, ties=(), **{name: dataclasses.replace(tower, stack=stack)})
    return model, {**params, name: {**params[name], "stack": {**params[name]["stack"], **own}}}


def _layers(p: Tree, n: int) -> list[Tree]:
    """n trees whose leaves have a leading axis of 1, from one with a leading axis of n."""
    if n == 1:
        return [p]
    leaves, treedef = jax.tree.flatten(p)
    split = [jax.lax.split(x, (1,) * n) for x in leaves]
    return [jax.tree.unflatten(treedef, layer) for layer in zip(*split, strict=True)]


def padded_left(
    what: str, rows: Prompts, vocab: int, longest: int | None, max_new: int, least: int = 16
) -> dict[str, np.ndarray]:
    """Tokens, positions and segments [B, S], where S + max_new is the bucket of the longest row. Every row ends at
    S."""
    rows = [np.asarray(row) for row in rows]
    for i, row in enumerate(rows):
        if not row.size:
            raise UserError(f"{what} {i} is empty: give at least one token, such as an end-of-text")
        if not np.issubdtype(row.dtype, np.integer) or row.ndim != 1:
            raise UserError(f"{what} {i} is {row.dtype}{list(row.shape)}: give a vector of token ids")
        wrong = row[(row < 0) | (row >= vocab)]
        if wrong.size:
            known = f"the vocabulary is 0 to {vocab - 1}"
            raise UserError(f"{what} {i} has token id {wrong[0]}, but {known}: use the model's own tokenizer")
        if longest is not None and len(row) + max_new > longest:
            raise UserError(_too_long(f"{what} {i}", len(row), max_new, longest))
    width = _bucket(max(map(len, rows)) + max_new, longest, least) - max_new
    tokens, segments = np.zeros((2, len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = row
        segments[i, width - len(row) :] = 1
    return {
        "tokens": tokens,
        "segments": segments,
        "positions": np.maximum(segments.cumsum(1, np.int32) - 1, 0),
    }


def _bucket(tokens: int, longest: int | None, least: int) -> int:
    """The bucket that this many tokens fall into."""
    length = max(least, 1 << (tokens - 1).bit_length())
    return length if longest is None else min(length, longest)


def _anew(text: np.ndarray, lengths: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """The batch that re-reads text [B, S], whose last `lengths` [B] tokens are real, before one more token is added.
    Padded on the right, up to a bucket of at most `most`, with tokens that none attends to."""
    width = _bucket(text.shape[1], most, 16)
    column = np.arange(width)
    positions = column - (text.shape[1] - lengths)[:, None]
    return {
        "tokens": np.pad(text, ((0, 0), (0, width - text.shape[1]))),
        "segments": ((positions >= 0) & (column < text.shape[1])).astype(np.int32),
        "positions": np.maximum(positions, 0).astype(np.int32),
        "length": np.broadcast_to(lengths[:, None] + 1, positions.shape).astype(np.int32),
    }


def _too_long(what: str, tokens: int, max_new: int, longest: int) -> str:
    whole = f"{what} of {tokens} tokens" + (f" and max_new={max_new}" if max_new else "")
    remedy = f"shorten it by {tokens + max_new - longest}"
    if max_new and tokens < longest:
        remedy += f", or set max_new={longest - tokens}"
    return f"{whole} exceed the {longest} positions of the model: {remedy}"
