"""Longformer (Beltagy et al. 2020, arXiv 2004.05150), and Lawformer (Xiao et al. 2021, 2105.03887), which was trained
on Chinese court files.

RoBERTa with a window of attention on either side in each layer, and tokens marked in the rows `global`, which see and
are seen by all through projections of their own: the first for a classifier of texts, the question's for answers."""

import dataclasses
import functools
from collections.abc import Callable

from lm.core.errors import UserError, nearest
from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.global_attention import GlobalAttention
from lm.model.special.global_tokens import GlobalBefore, GlobalFirst, GlobalTokens
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import BASE, CHINESE, LARGE, encoder
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import head_size, layer_ties

SIZES: Sizes = {"base-4096": BASE, "large-4096": LARGE}


def longformer(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50265,
    context: int = 4096,
    offset: int = 2,
    types: int = 1,
    windows: int | tuple[int, ...] = 512,
    marked: str = "given",
    separator: int = 2,
    max_global: int | None = None,
    activation: str = "gelu",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A Longformer of any shape. Of `windows`, one for all layers or one for each, half lies on either side. Where a
    batch has no rows `global`, nothing is `marked` ("given"), or the "first" token is, or the "question" before the
    first `separator`, a token's id. `max_global` bounds how many tokens of a row are marked, and with them the cost,
    which is that of full attention without. Positions begin at row `offset` of their table."""
    marks: dict[str, GlobalTokens | None] = {"given": None, "first": GlobalFirst(), "question": GlobalBefore(separator)}
    if marked not in marks:
        raise UserError(f"model.marked={marked!r} is unknown{nearest(marked, marks)}")
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = functools.partial(
        Attention,
        heads=heads,
        head_dim=head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    reads = windowed(attention, layers, windows, max_global)
    stack = Stack.of([Block((("attention", a), ("mlp", mlp)), PostNorm(norm, dropout=dropout)) for a in reads])
    model = encoder(
        stack,
        d_model=d_model,
        vocab=vocab,
        position=Learned(context + offset, offset, init),
        types=types,
        embed_norm=norm,
        norm=norm,
        activation="gelu",
        pretraining=("mlm",),
        dropout=dropout,
        tied=tied,
    )
    mark, ties = marks[marked], layer_ties(stack, *OUTPUTS)
    return dataclasses.replace(model, ties=model.ties + ties, marks=(("global", mark),) if mark else ())


def windowed(
    attention: Callable[..., Attention], layers: int, windows: int | tuple[int, ...], max_global: int | None
) -> list[GlobalAttention]:
    """The attention of each layer, from what makes one for a mask. The output maps of its two parts are to be tied."""
    each = (windows,) * layers if isinstance(windows, int) else windows
    if len(each) != layers or any(w < 2 or w % 2 for w in each):
        raise UserError(f"model.windows={windows} must be even, one number or one for each of the {layers} layers")
    anchors = attention(mask=Bidirectional())
    return [GlobalAttention(attention(mask=Window(w // 2 + 1, w // 2 + 1)), anchors, max_global) for w in each]


OUTPUTS = ("attention/anchors/o", "attention/o")  # paths in a layer that are tied

FAMILIES = {
    "longformer": Family(longformer, SIZES, "arXiv 2004.05150"),
    "lawformer": Family(functools.partial(longformer, vocab=CHINESE, eps=1e-12), {"base": BASE}, "arXiv 2105.03887"),
}
