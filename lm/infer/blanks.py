"""Filling in a text's blanks, as a model does that was trained so. A decoder with a `Prefix` mask writes a span for
each blank behind the text (`lm.objectives.examples.blanks`), an encoder-decoder a list of spans, each behind its
sentinel; a decoder that learned to fill in middles (`lm.objectives.examples.middle`) writes one behind its text."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree
from lm.core.rows import reads
from lm.core.walk import Unrolled
from lm.infer.generate import ENDED, Generator, padded_left, unrolled
from lm.infer.prompt import Prompt, prompt_of
from lm.infer.sampling import Sampler
from lm.model.cache import CacheShape
from lm.model.transformer import EncoderDecoder, Model
from lm.objectives.examples.blanks import BlankIds
from lm.objectives.examples.middle import MiddleIds
from lm.text.format import TextFormat
from lm.text.special import MIDDLE_ENDS, first_of
from lm.text.tokenizers import Tokenizer

Array = jax.Array
MOST = 200  # tokens of a blank, where nothing else is asked for
Spans = list[np.ndarray]  # int32 each, of a text's blanks in order


def fill(
    model: Model,
    params: Tree,
    text: TextFormat,
    ids: np.ndarray,
    *,
    num: int = 1,
    max_new: int | None = None,
    trained: int = 0,
    middle: MiddleIds | None = None,
    sampler: Sampler = Sampler(),
    seed: int = 0,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> list[np.ndarray]:
    """`num` ways to fill the blanks of a text: its ids int [tokens] with spans in their place; a blank that an
    encoder-decoder passed over is left. `max_new`: most tokens of a blank; None: what is left of the `trained` tokens,
    at most MOST. `middle`: the tokens of a model that fills in middles; None: those that the tokenizer has a name for.
    Raises `UserError` for a text without blanks, and a model or vocabulary that knows none."""
    tokenizer, middle = text.tokenizer, middle or MiddleIds.of(text.tokenizer)

    def write(prompt: Prompt, most: int, ends: Sequence[int]) -> list[np.ndarray]:
        return Generator(model, params, dtype=dtype)(
            [prompt.ids] * num,
            encoder=None if prompt.encoder is None else [prompt.encoder] * num,
            max_new=max_new or max(1, most),
            sampler=sampler,
            seed=seed,
            eos_id=tuple(ends),
        )

    if isinstance(model, EncoderDecoder):
        sentinels = [tokenizer.sentinel(i) for i in range(tokenizer.sentinels)]
        at = np.flatnonzero(np.isin(ids, sentinels))
        if not len(at):
            raise UserError("the text has no blank: write <extra_id_0>, <extra_id_1> ... where something is missing")
        written = write(prompt_of(model, text, ids), MOST, text.ends)
        found = (sentinel_spans(one, sentinels) for one in written)
        return [filled(ids, {int(i): spans[int(ids[i])] for i in at if int(ids[i]) in spans}) for spans in found]
    if middle is not None and "prefix" not in reads(model):
        place, laid = around_middle(ids, middle, tokenizer)
        prompt = prompt_of(model, text, laid)
        # whoever goes on with one of its own marks is done as well
        ends = (*text.ends, first_of(tokenizer, MIDDLE_ENDS), middle.prefix, middle.suffix, middle.middle)
        written = write(prompt, min(MOST, trained - len(prompt.ids)), [i for i in ends if i is not None])
        return [filled(ids, {place: one}) for one in written]
    prompt = prompt_of(model, text, ids)
    filler = BlankFiller(model, params, BlankIds.of(tokenizer, ()), dtype=dtype)
    at = filler.blanks(prompt.ids)
    if not len(at):
        names = names_of(tokenizer, filler.ids.blanks)
        raise UserError(f"the text has no blank: write {' or '.join(names)} where something is missing")
    left = max(1, (trained - len(prompt.ids)) // len(at) - 1)
    spans_of = filler([prompt.ids] * num, max_new=max_new or min(MOST, left), sampler=sampler, seed=seed)
    return [filled(prompt.ids, dict(zip(at.tolist(), spans, strict=True))) for spans in spans_of]


def around_middle(ids: np.ndarray, middle: MiddleIds, tokenizer: Tokenizer) -> tuple[int, np.ndarray]:
    """Where the middle of a text int [tokens] is missing: at the token that stands before the suffix; and the text as a
    model is asked for it, "<prefix> .. <suffix> .. <middle>". Raises `UserError` unless there is one such place."""
    at = np.flatnonzero(ids == middle.suffix)
    if len(at) != 1:
        (name,) = names_of(tokenizer, (middle.suffix,)) or (f"token {middle.suffix}",)
        raise UserError(f"the text has {len(at) or 'no'} blanks: write {name} once, where something is missing")
    before, after = ids[: at[0]], ids[at[0] + 1 :]
    prefix, suffix, end = (np.array([i]) for i in (middle.prefix, middle.suffix, middle.middle))
    return int(at[0]), np.concatenate([prefix, before, suffix, after, end]).astype(np.int32)


def names_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """How the special tokens of these ids are spelled."""
    return [name for name in tokenizer.markers if tokenizer.piece_id(name) in ids]


class FilledStep(NamedTuple):
    """What a step adds to each row: a token of the blank of that number, counted from 0; `ENDED`, and nothing, where a
    span has just ended."""

    tokens: np.ndarray  # int32 [B]
    blanks: np.ndarray  # int32 [B]


class BlankFiller:
    """A decoder ready to fill in blanks, as two compiled functions, like `lm.infer.generate.Generator`: one reads texts
    and the first [sop], the other adds a token.

    Spans are written in the order of their blanks, each with the spans before it in view, at the positions in text and
    span that training had. In a model that knows no positions within a span, those of a long blank go on from the
    text. `dtype` is that of the computation and the cache."""

    def __init__(
        self,
        model: Model,
        params: Tree,
        ids: BlankIds,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        sharding: Sharding | None = None,
    ) -> None:
        if "prefix" not in reads(model):
            raise UserError(
                "no part of this model reads what stands behind a blank: open one whose attention has a Prefix mask"
            )
        self.runs_on = "span" not in reads(model)
        self.ids, self.dtype = ids, dtype
        self.model, self.params = unrolled(model, params)
        ctx, unrolled_model = Ctx(sharding=sharding, execution=Execution(walk=Unrolled())), self.model

        def advance(params: Tree, batch: dict, cache: Tree, keys: Array, sampler: Sampler) -> tuple[Array, Tree]:
            """Read batch [B, S] and sample the next token of each row."""
            x, cache, _ = unrolled_model.hidden(params, batch, ctx, cache, dtype)
            logits = unrolled_model.logits(params, x[:, -1], ctx.at("head"))
            keys = jax.vmap(jax.random.fold_in)(keys, batch["positions"][:, -1] + 1)
            return sampler(keys, logits), cache

        def prefill(params: Tree, batch: dict, keys: Array, shape: CacheShape, sampler: Sampler) -> tuple[Array, Tree]:
            return advance(params, batch, unrolled_model.cache(shape), keys, sampler)

        self._prefill = jax.jit(prefill, static_argnames=("shape", "sampler"))
        self._decode = jax.jit(advance, static_argnames="sampler", donate_argnames="cache")

    def __call__(
        self, texts: Sequence[np.ndarray], *, max_new: int, sampler: Sampler = Sampler(), seed: int = 0
    ) -> list[Spans]:
        """The spans of each text's blanks; options as of `stream`."""
        spans: list[list[list[int]]] = [[[] for _ in self.blanks(text)] for text in texts]
        for step in self.stream(texts, max_new=max_new, sampler=sampler, seed=seed):
            for row in np.flatnonzero(step.tokens != ENDED):
                spans[row][step.blanks[row]].append(int(step.tokens[row]))
        return [[np.array(span, np.int32) for span in row] for row in spans]

    def blanks(self, text: np.ndarray) -> np.ndarray:
        """Where a text's blanks are."""
        return np.flatnonzero(np.isin(text, self.ids.blanks))

    def stream(
        self, texts: Sequence[np.ndarray], *, max_new: int, sampler: Sampler = Sampler(), seed: int = 0
    ) -> Iterator[FilledStep]:
        """Yields the next token of every text int [tokens], until all blanks are filled. A span of `max_new` tokens is
        ended. Draws are keyed by (seed, row, position).

        Raises `UserError` for a text without a blank, and for texts that with `max_new` more tokens for each blank
        exceed the model's positions."""
        if max_new < 1:
            raise UserError(f"max_new={max_new} must be at least 1")
        places = [self.blanks(text) for text in texts]
        for i, place in enumerate(places):
            if not len(place):
                raise UserError(f"text {i} has no blank: write {self.ids.blanks} where something is missing")
        count, starts = max(map(len, places)), [np.append(text, self.ids.start) for text in texts]
        room = count * (max_new + 1)
        batch = padded_left("text", starts, self.model.vocab, self.model.max_length, room - 1)
        width = batch["tokens"].shape[1]
        lengths = np.array([len(text) for text in texts], np.int32)
        blank, inside = np.zeros(len(texts), np.int32), np.ones(len(texts), np.int32)

        def place_of(position: np.ndarray) -> np.ndarray:
            """Text positions int32 [B] of the tokens at these positions of reading, in the blanks of now."""
            at = np.array([place[b] for place, b in zip(places, blank, strict=True)], np.int32)
            marks = np.array([text[p] for text, p in zip(texts, at, strict=True)])
            return np.where(self.runs_on & (marks == self.ids.long_mask), position, at).astype(np.int32)

        last = np.arange(width) == width - 1
        batch |= {
            "prefix": (batch["segments"] > 0) & ~last,
            "text_position": np.where(last, place_of(lengths)[:, None], batch["positions"]),
            "span": np.broadcast_to(last, batch["tokens"].shape).astype(np.int32),
        }
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(len(texts)))
        shape = CacheShape(len(texts), width + room - 1, 0, jnp.dtype(self.dtype))
        drawn, cache = self._prefill(self.params, batch, keys, shape=shape, sampler=sampler)
        live, counts = np.ones(len(texts), bool), np.array([len(place) for place in places])
        for step in range(1, room + 1):
            tokens = np.asarray(drawn)
            ends = (tokens == self.ids.end) | (inside > max_new)
            yield FilledStep(np.where(live & ~ends, tokens, ENDED), blank.copy())
            live &= ~(ends & (blank + 1 == counts))
            if not live.any():
                return
            blank = np.where(ends & live, blank + 1, blank)
            inside = np.where(ends, 1, inside + 1).astype(np.int32)
            position = lengths + step
            one = {
                "tokens": np.where(ends, self.ids.start, tokens).astype(np.int32),
                "segments": np.ones_like(lengths),
                "positions": position.astype(np.int32),
                "text_position": place_of(position),
                "span": inside,
            }
            drawn, cache = self._decode(
                self.params, {k: v[:, None] for k, v in one.items()}, cache, keys, sampler=sampler
            )


def sentinel_spans(written: np.ndarray, sentinels: Sequence[int]) -> dict[int, np.ndarray]:
    """The spans int32 that follow each of the sentinels in what an encoder-decoder wrote, by the sentinel's id. What
    is written under a sentinel for a second time is left out."""
    at = np.flatnonzero(np.isin(written, sentinels))
    found: dict[int, np.ndarray] = {}
    for start, stop in itertools.pairwise([*at, len(written)]):
        found.setdefault(int(written[start]), written[start + 1 : stop])
    return found


def filled(text: np.ndarray, spans: dict[int, np.ndarray]) -> np.ndarray:
    """A text int [tokens] with spans in place of some of its tokens, given by where these are."""
    parts = [spans.get(i, text[i : i + 1]) for i in range(len(text))]
    return np.concatenate(parts).astype(np.int32)
