"""A vocabulary in bands, frequent tokens first: the rarer a band, the narrower its rows may be.

Adaptive input embedding (Baevski and Auli 2019, arXiv 1809.10853) and adaptive softmax (Grave et al. 2017, 1609.04309),
with the projections of Transformer-XL (Dai et al. 2019, 1901.02860). Ties join the two band by band."""

import itertools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain, dropout
from lm.core.errors import UserError
from lm.core.leaf import dot, take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.heads.protocol import TOKENS, HeadLoss, LossTerms, vocabulary_loss
from lm.model.layers import ZEROS, linear, linear_spec

Array = jax.Array


class Band(NamedTuple):
    """Tokens `first` to `last` - 1, whose rows are `width` wide; `projected` from or to the model's width."""

    first: int
    last: int
    width: int
    projected: bool


def bands(vocab: int, cutoffs: tuple[int, ...], width: int, shrink: int, d: int) -> list[Band]:
    """The bands that begin at 0 and at each cut-off, each `shrink` times as narrow as the one before. With `shrink` 1
    they are projected where `width` is not the model's, otherwise all of them."""
    edges = (0, *cutoffs, vocab)
    if list(edges) != sorted(set(edges)):
        raise UserError(f"cutoffs={cutoffs} of a vocabulary of {vocab} must rise, and lie between 0 and that")
    if width < shrink ** len(cutoffs):
        raise UserError(f"width={width} divided by shrink={shrink} for each of {len(cutoffs)} cutoffs leaves nothing")
    pairs = enumerate(itertools.pairwise(edges))
    return [Band(first, last, width // shrink**i, shrink > 1 or width != d) for i, (first, last) in pairs]


@component
class AdaptiveEmbed:
    """scale * (row of the token) W_band; `width` of the first band's rows defaults to the model's."""

    max_length: ClassVar[None] = None

    vocab: int
    cutoffs: tuple[int, ...] = ()
    width: int | None = None
    shrink: int = 1
    scale: float = 1.0
    dropout: float = 0.0
    init: Initializer = Normal()

    def bands(self, d: int) -> list[Band]:
        return bands(self.vocab, self.cutoffs, self.width or d, self.shrink, d)

    def spec(self, d: int) -> Tree:
        spec: Tree = {}
        for i, band in enumerate(self.bands(d)):
            spec[str(i)] = {"w": Param((band.last - band.first, band.width), ("vocab", "embed"), self.init)}
            if band.projected:
                spec[str(i)]["project"] = linear_spec((band.width, d), (None, "embed"), False, self.init)
        return spec

    def __call__(self, p: Tree, ids: Array, ctx: Ctx, d: int, dtype: jax.typing.DTypeLike) -> Array:
        """ids [B, S] -> [B, S, D]"""
        x = jnp.zeros((*ids.shape, d), dtype)
        for i, band in enumerate(self.bands(d)):
            own = p[str(i)]
            table = own["w"]
            if isinstance(table, jax.Array):  # whole rows: see `Embed`
                table = constrain(table, ctx, "vocab", None)
            row = take(table, jnp.clip(ids - band.first, 0, band.last - band.first - 1), dtype)
            row = linear(own["project"], row) if band.projected else row
            x = jnp.where(((ids >= band.first) & (ids < band.last))[..., None], row, x)
        if (share := ctx.embed_gradient) != 1:
            x = share * x + (1 - share) * jax.lax.stop_gradient(x)
        return constrain(dropout(x * self.scale, self.dropout, ctx, "embed"), ctx, "batch", "seq", "embed")


@component
class AdaptiveHead:
    """Log-probabilities over the vocabulary. The first band is one softmax with an entry for each other band; what such
    an entry holds is shared out among its band's tokens by a softmax of their own.

    Band i is (x W_i^T) E_i^T + b_i, with E_i [tokens, width_i] as in an `AdaptiveEmbed` and W_i, where the band is
    projected, stored as there, so that either may be tied."""

    predicts: ClassVar[str] = TOKENS

    vocab: int
    cutoffs: tuple[int, ...] = ()
    width: int | None = None
    shrink: int = 1
    init: Initializer = Normal()

    def bands(self, d: int) -> list[Band]:
        return bands(self.vocab, self.cutoffs, self.width or d, self.shrink, d)

    def spec(self, d: int) -> Tree:
        spec = AdaptiveEmbed(self.vocab, self.cutoffs, self.width, self.shrink, init=self.init).spec(d)
        for i, band in enumerate(self.bands(d)):
            spec[str(i)]["b"] = Param((band.last - band.first,), ("vocab",), ZEROS, "bias")
        if self.cutoffs:
            n, width = len(self.cutoffs), self.bands(d)[0].width
            rare = Param((n, width), (None, "embed"), self.init)
            spec["bands"] = {"w": rare, "b": Param((n,), (None,), ZEROS, "bias")}
        return spec

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., D] -> float32 [..., V]"""
        found: list[Array] = []
        rare = jnp.zeros((*x.shape[:-1], 0))
        for i, band in enumerate(self.bands(x.shape[-1])):
            own = p[str(i)]
            h = dot(x, own["project"]["w"], transpose=True) if band.projected else x
            scores = _scores(own, h)
            if i == 0 and self.cutoffs:
                scores = jnp.concatenate([scores, _scores(p["bands"], h)], axis=-1)
            logs = jax.nn.log_softmax(scores, axis=-1)
            if i == 0:
                logs, rare = logs[..., : band.last], logs[..., band.last :]
            else:
                logs = logs + rare[..., i - 1, None]
            found.append(logs)
        whole = jnp.concatenate(found, axis=-1)
        return constrain(whole, ctx, "batch", *(None,) * (x.ndim - 2), "vocab")

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return vocabulary_loss(self, p, x, targets, weights, ctx, terms)


def _scores(p: Tree, h: Array) -> Array:
    return dot(h, p["w"], transpose=True, dtype=jnp.float32) + p["b"]
