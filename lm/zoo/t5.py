"""T5 (Raffel et al. 2020, arXiv 1910.10683) and what was trained in its shapes: T5 1.1 (Shazeer 2020, 2002.05202; T0,
Flan-T5 and Tk-Instruct continue it), mT5, UMT5, ByT5, CodeT5 and ProtT5.

Encoder-decoder of pre-RMSNorm blocks without biases. Scores are not scaled; positions are a bias per head and bucketed
distance, from one table for all layers of a stack (UMT5: one for each). One token table serves encoder, decoder and
head, whose input is scaled by d_model ** -0.5; 1.1 has a head of its own, unscaled, and gated GELU."""

import functools
from collections.abc import Callable
from typing import Any

from lm.core.errors import UserError
from lm.core.param import FanIn, Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.block import Block, Named
from lm.model.embed import Embed
from lm.model.heads import LMHead, NoHead
from lm.model.kv_sources import CrossKV, SelfKV
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import MLP, GatedMLP
from lm.model.residual import PreNorm
from lm.model.special.summaries import BlockSummaries
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, LanguageModel, Model, Transformer
from lm.zoo.family import Family, Sizes

Tables = tuple[tuple[str, Any], ...]

_1_1 = {"activation": "gelu_tanh", "gated": True, "tied": False}
_SMALL = {"layers": 8, "d_model": 512, "heads": 6, "d_ff": 1024}
_BASE = {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 2048}
_LARGE = {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 2816}
_XL = {"layers": 24, "d_model": 2048, "heads": 32, "d_ff": 5120}
_XXL = {"layers": 24, "d_model": 4096, "heads": 64, "d_ff": 10240}
FIVE = {"small": _SMALL, "base": _BASE, "large": _LARGE, "xl": _XL, "xxl": _XXL}
_1_0 = {
    "base": {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 3072},
    "large": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 4096},
    "3b": {"layers": 24, "d_model": 1024, "heads": 32, "head_dim": 128, "d_ff": 16384},
    "11b": {"layers": 24, "d_model": 1024, "heads": 128, "head_dim": 128, "d_ff": 65536},
}
SIZES: Sizes = {
    "small": {"layers": 6, "d_model": 512, "heads": 8, "d_ff": 2048},
    **_1_0,
    **{f"1.1-{size}": {**knobs, **_1_1} for size, knobs in FIVE.items()},
}
# Xue et al. 2021, arXiv 2105.13626, table 1: encoders three times as deep as decoders.
BYT5: Sizes = {
    "small": {"layers": 12, "decoder_layers": 4, "d_model": 1472, "heads": 6, "d_ff": 3584},
    "base": {"layers": 18, "decoder_layers": 6, "d_model": 1536, "heads": 12, "d_ff": 3968},
    "large": {"layers": 36, "decoder_layers": 12, "d_model": 1536, "heads": 16, "d_ff": 3840},
    "xl": {"layers": 36, "decoder_layers": 12, "d_model": 2560, "heads": 32, "d_ff": 6720},
    "xxl": {"layers": 36, "decoder_layers": 12, "d_model": 4672, "heads": 64, "d_ff": 12352},
}
CODET5 = {"base": _1_0["base"], "large": _1_0["large"], "plus-220m": _1_0["base"], "plus-770m": _1_0["large"]}
# Elnaggar et al. 2021, arXiv 2007.06225
PROTT5 = {"xl": _1_0["3b"], "xxl": _1_0["11b"]}


def t5(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    decoder_layers: int | None = None,
    head_dim: int = 64,
    vocab: int = 32128,
    activation: str = "relu",
    gated: bool = False,
    buckets: int = 32,
    max_distance: int = 128,
    shared_bias: bool = True,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
    scaled: bool | None = None,
    encoder_only: bool = False,
    radius: int | None = None,
    block: int | None = None,
) -> Model:
    """A T5 of any shape; `SIZES` has the published ones. The decoder has as many layers as the encoder if
    `decoder_layers` is not given. The head's input is scaled if `scaled`, by default where its table is tied. With
    `encoder_only` the encoder alone, whose states are the result. An encoder with a `radius` attends no farther, and
    with a `block` to summaries of that many tokens besides (LongT5)."""
    init = Normal(d_model**-0.5)
    attention = attention_of(heads, head_dim, dropout)
    feed_forward = GatedMLP if gated else MLP
    mlp = feed_forward(d_ff, activation, bias=False, dropout=dropout, init=FanIn(), out_init=FanIn())
    bias = functools.partial(BucketedBias, buckets=buckets, max_distance=max_distance, init=init)
    tables = ("relative_bias",) if block is None else ("near_bias", "far_bias")  # of the encoder
    near, *far = tables if shared_bias else (None,) * len(tables)
    reads = attention(
        mask=Bidirectional() if radius is None else Window(radius + 1, radius + 1),
        bias=(bias(near, bidirectional=True),),
        source=SelfKV() if block is None else BlockSummaries(block, RMSNorm(eps), bias(far[0], bidirectional=True)),
    )
    writes = attention(bias=(bias("relative_bias" if shared_bias else None),))
    cross = attention(mask=Bidirectional(), source=CrossKV())
    table = BiasTable(buckets, heads, init=init)
    return assembled(
        (("attention", reads), ("mlp", mlp)),
        () if encoder_only else (("attention", writes), ("cross", cross), ("mlp", mlp)),
        depths=(layers, layers if decoder_layers is None else decoder_layers),
        tables=tuple((name, table) for name in tables) if shared_bias else (),
        decoder_tables=(("relative_bias", table),) if shared_bias else (),
        d_model=d_model,
        vocab=vocab,
        norm=RMSNorm(eps),
        dropout=dropout,
        tied=tied,
        scaled=tied if scaled is None else scaled,
    )


def attention_of(heads: int, head_dim: int, dropout: float = 0.0) -> Callable[..., Attention]:
    """Attention whose scores are not scaled: its queries start smaller instead."""
    init, q_init = FanIn(), FanIn(1 / head_dim)
    return functools.partial(
        Attention,
        heads,
        head_dim,
        softmax=Softmax(1.0),
        dropout=dropout,
        projections=Projections(init=init, q_init=q_init, out_init=init),
    )


def assembled(
    encoder: Named,
    decoder: Named,
    *,
    depths: tuple[int, int],
    tables: Tables,
    decoder_tables: Tables,
    d_model: int,
    vocab: int,
    norm: RMSNorm,
    dropout: float,
    tied: bool,
    scaled: bool,
) -> Model:
    """An encoder-decoder from the parts of its layers; the encoder alone where the decoder has none."""

    def tower(parts: Named, depth: int, tables: Tables) -> Transformer:
        if depth < 1:
            raise UserError(f"model.decoder_layers={depth} must be at least 1; for none set model.encoder_only")
        stack = Stack.of([Block(parts, PreNorm(norm, dropout))] * depth, norm=norm, tables=tables)
        return Transformer(d_model, Embed(vocab, dropout=dropout, init=Normal(1.0)), stack)

    if not decoder:
        return LanguageModel(tower(encoder, depths[0], tables), NoHead())
    ties = (("encoder/embed/token", "decoder/embed/token"), ("head/w", "decoder/embed/token"))
    return EncoderDecoder(
        encoder=tower(encoder, depths[0], tables),
        decoder=tower(decoder, depths[1], decoder_tables),
        head=LMHead(vocab, scale=d_model**-0.5 if scaled else 1.0, init=Normal(d_model**-0.5)),
        ties=ties if tied else ties[:1],
    )


t5_1_1 = functools.partial(t5, activation="gelu_tanh", gated=True, tied=False)
FAMILIES = {
    "t5": Family(t5, SIZES, "arXiv 1910.10683, 2002.05202"),
    "mt5": Family(functools.partial(t5_1_1, vocab=250112), FIVE, "arXiv 2010.11934"),
    "umt5": Family(
        functools.partial(t5_1_1, vocab=256384, shared_bias=False),
        {size: FIVE[size] for size in ("small", "base", "xl", "xxl")},
        "arXiv 2304.09151",
    ),
    "byt5": Family(functools.partial(t5_1_1, vocab=384), BYT5, "arXiv 2105.13626"),
    "codet5": Family(functools.partial(t5, vocab=32100), CODET5, "arXiv 2109.00859, 2305.07922"),
    "prott5": Family(functools.partial(t5, vocab=128), PROTT5, "arXiv 2007.06225"),
}
