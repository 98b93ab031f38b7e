"""Whole models: one tower (encoder-only, decoder-only), encoder-decoders, and groups that train together.

They read a batch (`lm.core.rows`), of which only `tokens` must be there. `hidden` gives the last states, from which
heads and losses are computed.
"""

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component, components
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Ties, Tree, with_aliases, without_aliases
from lm.core.rows import ENCODER, LOSS_KEYS, OF_ROW, Batch, check_keys, reads
from lm.model.attention import Attention
from lm.model.cache import CacheShape
from lm.model.embed import Embedder
from lm.model.heads import Head, Heads
from lm.model.kv_sources import CrossKV
from lm.model.moe.routers import Router
from lm.model.order import in_zigzag
from lm.model.special.global_tokens import GlobalTokens
from lm.model.special.head_experts import HeadExperts
from lm.model.special.latent import LatentAttention
from lm.model.special.streams import StreamTransformer
from lm.model.stack import Stack

Array = jax.Array
Result = tuple[Array, Any, Tree]  # states [B, S, D], cache, aux


def rows_of(batch: Batch, prefix: str = "") -> dict[str, Array]:
    """The rows of ctx that stand under `prefix` in a batch, positions counted from 0 where they are not given."""
    rows = {k.removeprefix(prefix): v for k, v in batch.items() if k.startswith(prefix) and k not in LOSS_KEYS}
    rows = {k: v for k, v in rows.items() if "/" not in k}
    if "positions" not in rows:
        rows["positions"] = jnp.broadcast_to(jnp.arange(rows["tokens"].shape[1]), rows["tokens"].shape)
    return rows


@component
class Transformer:
    """One tower: embedding and stack."""

    d_model: int
    embed: Embedder
    stack: Stack

    def spec(self) -> Tree:
        return {"embed": self.embed.spec(self.d_model), "stack": self.stack.spec(self.d_model)}

    @property
    def width(self) -> int:
        """Of the states that come out."""
        return self.stack.widths(self.d_model)[-1]

    def cache(self, shape: CacheShape) -> list:
        if self.embed.max_length is not None and shape.length > self.embed.max_length:
            raise UserError(
                f"{shape.length} tokens do not fit: this model has positions for {self.embed.max_length}; ask for fewer"
            )
        return self.stack.cache(self.d_model, shape)

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, cache: Any, dtype: jax.typing.DTypeLike) -> Result:
        ids, ctx, in_row_order = in_zigzag(self, ids, ctx, cache)
        x = self.embed(p["embed"], ids, ctx.at("embed"), self.d_model, dtype)
        x, cache, aux = self.stack(p["stack"], x, ctx, cache)
        return in_row_order(x), cache, aux

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p | {"stack": self.stack.update(p["stack"], aux)}


class HeadedModel(abc.ABC):
    """What models with a head on the states of one tower share. Subclasses are components with `head` and `ties`."""

    head: Head
    ties: Ties

    @property
    @abc.abstractmethod
    def tower(self) -> "Transformer | StreamTransformer":
        """The one whose states the head reads, and which a generation continues."""

    @property
    def vocab(self) -> int:
        return self.tower.embed.vocab

    @property
    def max_length(self) -> int | None:
        return self.tower.embed.max_length

    @property
    def causal(self) -> bool:
        """Whether no token of the tower sees those that follow it, so that the model may write token by token."""
        parts = tuple(components(self.tower.stack))
        of_itself = (
            part
            for part in parts
            if isinstance(part, (LatentAttention, HeadExperts))
            or (isinstance(part, Attention) and not isinstance(part.source, CrossKV))
        )
        ahead = any(part.ahead for part in parts if isinstance(part, Router))
        return all(part.mask.causal for part in of_itself) and not ahead

    def cache(self, shape: CacheShape) -> list:
        return self.tower.cache(shape)

    @abc.abstractmethod
    def hidden(
        self, params: Tree, batch: Batch, ctx: Ctx, cache: Any = None, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Result:
        """batch -> (states [B, S, D], cache, aux)."""

    def logits(self, params: Tree, x: Array, ctx: Ctx) -> Any:
        """The head on states x [..., D]."""
        return self.head(self.head_params(params), x, ctx)

    def __call__(self, params: Tree, batch: Batch, ctx: Ctx = Ctx(), dtype: jax.typing.DTypeLike = jnp.float32) -> Any:
        """What the head makes of a whole batch: scores, or a dict of them where there are several heads."""
        x, _, _ = self.hidden(params, batch, ctx, None, dtype)
        return self.logits(params, x, head_ctx(ctx, batch))

    def head_params(self, params: Tree) -> Tree:
        return with_aliases(params, self.ties)["head"]


@component
class LanguageModel(HeadedModel):
    """A tower with a head: GPT, LLaMA, BERT. `marks` (by name) are rows to work out where a batch lacks them."""

    body: Transformer
    head: Head
    ties: Ties = ()
    marks: tuple[tuple[str, GlobalTokens], ...] = ()

    @property
    def tower(self) -> Transformer:
        return self.body

    def spec(self) -> Tree:
        whole = {"body": self.body.spec(), "head": self.head.spec(self.body.width)}
        return without_aliases(whole, self.ties)

    def hidden(
        self, params: Tree, batch: Batch, ctx: Ctx, cache: Any = None, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Result:
        """batch -> (states [B, S, D], cache, aux). With a cache, positions must be given."""
        check_keys(batch, reads(self) | dict(self.marks).keys())
        params, rows = with_aliases(params, self.ties), rows_of(batch)
        marked = {name: mark(batch["tokens"], rows) for name, mark in self.marks if name not in rows}
        ctx = ctx.replace(rows=ctx.rows | rows | marked)
        return self.body(params["body"], batch["tokens"], ctx.at("body"), cache, dtype)

    def update(self, params: Tree, aux: Tree) -> Tree:
        """Move the buffers, given what the step's forward pass left in `aux`, that of the head's layers in `head`."""
        moved = {"body": self.body.update(params["body"], aux)}
        if "head" in aux and (update := getattr(self.head, "update", None)):
            moved["head"] = update(params["head"], aux["head"])
        return params | moved


@component
class EncoderDecoder(HeadedModel):
    """An encoder whose output the decoder's `CrossKV` sources read (Vaswani et al. 2017; T5, arXiv 1910.10683)."""

    reads: ClassVar[tuple[str, ...]] = ("encoder/tokens",)

    encoder: Transformer
    decoder: Transformer | StreamTransformer
    head: Head
    ties: Ties = ()

    @property
    def tower(self) -> Transformer | StreamTransformer:
        return self.decoder

    def spec(self) -> Tree:
        whole = {
            "encoder": self.encoder.spec(),
            "decoder": self.decoder.spec(),
            "head": self.head.spec(self.decoder.width),
        }
        return without_aliases(whole, self.ties)

    def encode(
        self, params: Tree, batch: Batch, ctx: Ctx, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> tuple[dict[str, Array], Tree]:
        """The rows that the decoder's cross-attention reads, and the encoder's aux."""
        params = with_aliases(params, self.ties)
        rows = rows_of(batch, ENCODER)
        inner = ctx.replace(rows=ctx.rows | rows | {k: v for k, v in batch.items() if k in OF_ROW}).at("encoder")
        x, _, aux = self.encoder(params["encoder"], batch["encoder/tokens"], inner, None, dtype)
        return {"encoder": x} | {f"encoder/{k}": v for k, v in rows.items()}, aux

    def hidden(
        self, params: Tree, batch: Batch, ctx: Ctx, cache: Any = None, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Result:
        """batch -> (decoder states [B, S, D], cache, aux). A batch without `encoder/tokens` continues a generation
        whose cache was primed by one that had them."""
        check_keys(batch, reads(self), encoder=True)
        memory: dict[str, Array] = {}
        aux: Tree = {}
        if "encoder/tokens" in batch:
            memory, aux["encoder"] = self.encode(params, batch, ctx, dtype)
        x, cache, aux["decoder"] = self.decode(params, batch, memory, ctx, cache, dtype)
        return x, cache, aux

    def decode(
        self,
        params: Tree,
        batch: Batch,
        memory: dict[str, Array],
        ctx: Ctx,
        cache: Any = None,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Result:
        """batch, and what `encode` gave -> (decoder states [B, S, D], cache, the decoder's aux)."""
        params = with_aliases(params, self.ties)
        ctx = ctx.replace(rows=ctx.rows | rows_of(batch) | memory).at("decoder")
        return self.decoder(params["decoder"], batch["tokens"], ctx, cache, dtype)

    def update(self, params: Tree, aux: Tree) -> Tree:
        towers = {"encoder": self.encoder, "decoder": self.decoder}
        return params | {name: t.update(params[name], aux[name]) for name, t in towers.items() if name in aux}


@component
class Group:
    """Models that train together and may share tensors, as ELECTRA's generator and discriminator do. Each is called
    with its own part of `resolve(params)`, by an objective that knows their names.

    The last one is what the others are there for. Where a group stands for one model, it is that: in vocabulary, cache,
    states and scores."""

    parts: tuple[tuple[str, LanguageModel | EncoderDecoder], ...]
    ties: Ties = ()

    def spec(self) -> Tree:
        return without_aliases({name: model.spec() for name, model in self.parts}, self.ties)

    def resolve(self, params: Tree) -> Tree:
        return with_aliases(params, self.ties)

    def update(self, params: Tree, aux: Tree) -> Tree:
        """Move the buffers of the parts that left something in `aux`, which has it under their names."""
        whole = self.resolve(params)
        moved = {name: model.update(whole[name], aux[name]) for name, model in self.parts if name in aux}
        return without_aliases(whole | moved, self.ties)

    @property
    def main(self) -> "LanguageModel | EncoderDecoder":
        return self.parts[-1][1]

    @property
    def head(self) -> Head:
        return self.main.head

    @property
    def tower(self) -> "Transformer | StreamTransformer":
        return self.main.tower

    @property
    def vocab(self) -> int:
        """Tokens that all parts know."""
        return min(model.vocab for _, model in self.parts)

    @property
    def max_length(self) -> int | None:
        """Positions that all parts have."""
        return min((model.max_length for _, model in self.parts if model.max_length is not None), default=None)

    @property
    def causal(self) -> bool:
        return self.main.causal

    def cache(self, shape: CacheShape) -> list:
        return self.main.cache(shape)

    def hidden(
        self, params: Tree, batch: Batch, ctx: Ctx, cache: Any = None, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Result:
        return self.main.hidden(self._own(params), batch, ctx, cache, dtype)

    def logits(self, params: Tree, x: Array, ctx: Ctx) -> Any:
        return self.main.logits(self._own(params), x, ctx)

    def __call__(self, params: Tree, batch: Batch, ctx: Ctx = Ctx(), dtype: jax.typing.DTypeLike = jnp.float32) -> Any:
        return self.main(self._own(params), batch, ctx, dtype)

    def head_params(self, params: Tree) -> Tree:
        return self.main.head_params(self._own(params))

    def _own(self, params: Tree) -> Tree:
        """The parameters of the main part."""
        return self.resolve(params)[self.parts[-1][0]]


Model = LanguageModel | EncoderDecoder | Group


def head_ctx(ctx: Ctx, batch: Batch) -> Ctx:
    """The ctx in which a model's head is called on the states of a batch."""
    read = {name: batch[name] for name in (f"{ENCODER}tokens",) if name in batch}
    return ctx.replace(rows=ctx.rows | rows_of(batch) | read).at("head")


def with_head(model: Model, head: Head, ties: Ties = ()) -> Model:
    """The same model with another head and its ties, in place of those of the one before; of a group, its last part."""
    if isinstance(model, Group):
        *others, (name, part) = model.parts
        changed = with_head(part, head, ties)
        assert not isinstance(changed, Group)
        return dataclasses.replace(model, parts=(*others, (name, changed)))
    kept = tuple(t for t in model.ties if not t[0].startswith("head/"))
    return dataclasses.replace(model, head=head, ties=(*kept, *ties))


def with_part(model: Model, params: Tree, name: str) -> tuple[Model, Tree]:
    """A model with several heads, and its parameters, as one with the head of that name alone."""
    assert not isinstance(model, Group) and isinstance(model.head, Heads)  # callers have looked
    own = with_aliases(params, model.ties)
    return dataclasses.replace(model, head=dict(model.head.parts)[name], ties=()), own | {"head": own["head"][name]}


def tied(pairs: Iterable[str], owner: str) -> Ties:
    """Ties of several aliases to one owner."""
    return tuple((alias, owner) for alias in pairs)
