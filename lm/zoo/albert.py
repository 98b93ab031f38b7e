"""ALBERT (Lan et al. 2020, arXiv 1909.11942): BERT whose layers share one set of weights (or one for each group of
layers), with an embedding narrower than the layers, trained to fill in masked tokens and to order sentences (SOP)."""

import collections

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.model.stack import LayerGroup, Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import encoder, layer
from lm.zoo.family import Family

SIZES = {
    "base": {"layers": 12, "d_model": 768, "heads": 12},
    "large": {"layers": 24, "d_model": 1024, "heads": 16},
    "xlarge": {"layers": 24, "d_model": 2048, "heads": 16},
    "xxlarge": {"layers": 12, "d_model": 4096, "heads": 64},
}


def albert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30000,
    context: int = 512,
    types: int = 2,
    embed_width: int = 128,
    groups: int = 1,
    inner: int = 1,
    activation: str = "gelu_tanh",
    eps: float = 1e-12,
    dropout: float = 0.0,
    pretraining: tuple[str, ...] = ("mlm",),
    tied: bool = True,
) -> LanguageModel:
    """An ALBERT of any shape; `SIZES` has the published ones. Layers belong to `groups`, one after the other, that have
    weights of their own; each consists of `inner` blocks, each of which has its own. `pretraining`: see `bert`."""
    norm = LayerNorm(eps)
    block = layer(d_model, heads, d_ff, activation, norm, dropout=dropout)
    sizes = [n for _, n in sorted(collections.Counter(_groups(layers, groups)).items())]
    if len(sizes) != groups:
        raise UserError(f"model.groups={groups} of {layers} layers leaves one without any: choose fewer groups")
    return encoder(
        Stack(tuple(LayerGroup((block,) * inner, n, tied=True) for n in sizes)),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context, init=Normal(0.02)),
        types=types,
        embed_width=embed_width,
        embed_norm=norm,
        norm=norm,
        activation=activation,
        dropout=dropout,
        pretraining=pretraining,
        tied=tied,
    )


def _groups(layers: int, groups: int) -> list[int]:
    """Each layer's group; this very division is what others do, rounding errors included."""
    return [int(i / (layers / groups)) for i in range(layers)] if groups > 0 else []


FAMILIES = {"albert": Family(albert, SIZES, "arXiv 1909.11942")}
