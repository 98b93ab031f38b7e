"""Toy encoders, encoder-decoders and models that train together, of the parts of `tests.toys`."""

import functools

from lm.core.param import Constant, FanIn, Normal
from lm.model.attention import Softmax
from lm.model.attention_bias import (
    BiasTable,
    BucketedBias,
)
from lm.model.block import Block
from lm.model.embed import Embed, RowTable
from lm.model.heads import FirstTokenFeature, Heads, LMHead, NoHead, SequenceClassifier, TokenClassifier, TransformHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import (
    Bidirectional,
    Either,
    Except,
    GlobalMask,
    Window,
)
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import RouterSlots
from lm.model.moe.expert_choice import ExpertChoice, SoftMixture
from lm.model.positions import Learned
from lm.model.residual import PostNorm, PreNorm
from lm.model.special.block_sparse import EdgeBlocks
from lm.model.special.branch import Branched
from lm.model.special.conditional import ConditionalAttention, ConditionalMLP, SoftTopK
from lm.model.special.convolution import Convolution
from lm.model.special.enhanced_decoder import EnhancedDecoderLayer
from lm.model.special.global_attention import GlobalAttention
from lm.model.special.global_tokens import GlobalBefore, GlobalFirst
from lm.model.special.spans import SpanBoundary
from lm.model.special.streams import StreamAttention, StreamHead, StreamTransformer
from lm.model.special.summaries import BlockSummaries, GlobalKV
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Group, LanguageModel, Transformer
from tests.toys import (
    HEADS,
    LENGTH,
    SIZE,
    VOCAB,
    WIDE,
    D,
    attention,
    block,
    experts,
    gated,
    language_model,
    maps,
    mlp,
    pre,
    tower,
)


def encoder_decoder() -> EncoderDecoder:
    """T5's: a shared bias in the encoder, UMT5's own ones in the decoder, cross-attention, one table for both
    embeddings and the head."""
    above = attention(
        mask=Bidirectional(), bias=(BucketedBias(buckets=8, max_distance=7, bidirectional=True),), softmax=Softmax(1.0)
    )
    below = attention(
        bias=(BucketedBias(None, buckets=6, max_distance=7, init=WIDE),),
        softmax=Softmax(1.0),
        projections=maps(q_init=Normal(0.3)),
    )
    cross = attention(mask=Bidirectional(), source=CrossKV(), softmax=Softmax(1.0))
    norm = PreNorm(RMSNorm(), dropout=0.25)
    encoder = tower([block(above, mlp, norm)] * 2, tables=(("relative_bias", BiasTable(8, HEADS, init=Constant(0.5))),))
    decoder = tower([block(below, mlp, norm, cross=cross)] * 2)
    shared = "decoder/embed/token"
    ties = (("encoder/embed/token", shared), ("head/w", shared))
    return EncoderDecoder(encoder, decoder, LMHead(VOCAB, scale=D**-0.5), ties)


def long_reader() -> EncoderDecoder:
    """An encoder for long texts: LongT5's summaries, keys of anchors, CoLT5's branches, a layer each."""
    here = functools.partial(attention, mask=Window(3, 3))
    summaries = BlockSummaries(
        3, RMSNorm(), BucketedBias(None, buckets=8, max_distance=7, bidirectional=True, init=WIDE)
    )
    routed = attention(mask=Bidirectional(), source=CrossKV("routed"))
    both = ConditionalAttention(here(), routed, SoftTopK(4, init=WIDE), SoftTopK(2, 0.5, 20, 1.5, init=WIDE))
    wide = GatedMLP(16, init=WIDE, out_init=WIDE)
    anchors = attention(mask=Except(Window(3, 3), GlobalMask()), source=GlobalKV(2))
    last = block(both, ConditionalMLP(gated, wide, SoftTopK(3, init=WIDE)))
    blocks = [block(here(source=summaries)), block(anchors), last]
    cross = attention(mask=Bidirectional(), source=CrossKV(), kv_heads=1)
    return EncoderDecoder(tower(blocks), tower([block(attention(), gated, pre, cross=cross)]), LMHead(VOCAB, init=WIDE))


def predictors() -> EncoderDecoder:
    """ProphetNet's, of three tokens at once."""
    knobs = {"dropout": 0.25, "init": WIDE, "out_init": WIDE}
    streams = StreamAttention(HEADS, SIZE, 3, buckets=6, max_distance=7, **knobs)
    cross = attention(mask=Bidirectional(), source=CrossKV())
    embed = Embed(VOCAB, Learned(20, init=WIDE), norm=LayerNorm(), dropout=0.25, init=WIDE)
    below = Stack.of([block(streams, mlp, PostNorm(LayerNorm()), cross=cross)] * 2)
    decoder = StreamTransformer(D, embed, below, 3, init=WIDE)
    return EncoderDecoder(
        tower([block(attention(mask=Bidirectional()))]), decoder, StreamHead(LMHead(VOCAB, init=WIDE), 3)
    )


def encoder() -> LanguageModel:
    """One tower with many heads."""
    lm = LMHead(VOCAB, bias=True, init=WIDE)
    heads = Heads(
        (
            ("pooled", SequenceClassifier(activation="tanh", init=WIDE)),
            ("kind", SequenceClassifier(3, at="end", end=2, bias=False, init=WIDE)),
            ("tags", TokenClassifier(3, bias=False, init=WIDE)),
            ("spans", SpanBoundary(lm, LayerNorm(), max_span=4, position_width=3, width=6, init=WIDE)),
            ("states", NoHead()),
        )
    )
    one = block(attention(mask=Bidirectional()), mlp, PostNorm(LayerNorm()))
    return LanguageModel(Transformer(D, Embed(VOCAB, init=WIDE), Stack.of([one] * 2)), heads)


def windowed_encoder() -> LanguageModel:
    """Longformer's attention, with first tokens as anchors, behind a layer with a convolution beside it and before one
    of BigBird's and one that asks twice; detection of replaced tokens."""
    local = attention(mask=Either((Window(2, 3), GlobalMask())))
    one = Block(
        (("attention", GlobalAttention(local, attention(mask=Bidirectional()))), ("mlp", mlp)), PostNorm(LayerNorm())
    )
    last = Block((("attention", attention(mask=Bidirectional(), source=CrossKV("context"))),), PostNorm(LayerNorm()))
    convolution = Convolution(3, groups=2, dropout=0.25, init=WIDE)
    edges = block(attention(mask=Bidirectional(), bias=(EdgeBlocks(2, 3, LENGTH // 2),)), mlp, PostNorm(LayerNorm()))
    blocks = [Branched(one, convolution, LayerNorm()), one, edges, EnhancedDecoderLayer(last)]
    embed = Embed(VOCAB, width=6, project="sum", norm=LayerNorm(), init=WIDE)
    body = Transformer(D, embed, Stack.of(blocks, tables=(("absolute", BiasTable(16, init=WIDE)),)))
    head = FirstTokenFeature(TokenClassifier(1, "gelu", init=WIDE), LayerNorm())
    return LanguageModel(body, head, marks=(("global", GlobalFirst()), ("question", GlobalBefore(2))))


def taking_experts() -> LanguageModel:
    """An encoder whose experts take tokens, and mixtures of them."""
    routers = (ExpertChoice(1.5, group=4, init=WIDE), SoftMixture(2, group=4, init=WIDE, scale=2.0))
    layers = [block(attention(mask=Bidirectional()), experts(router, RouterSlots())) for router in routers]
    return language_model(layers)


def two_models() -> Group:
    """ELECTRA's generator and discriminator over the same embeddings."""
    one = block(attention(mask=Bidirectional()), mlp, PostNorm(LayerNorm()))
    embed = Embed(
        VOCAB, Learned(16, init=WIDE), norm=LayerNorm(), extra=(RowTable("types", 2, WIDE),), scale=2.0, init=WIDE
    )
    generator = LanguageModel(
        Transformer(D, embed, Stack.of([one])),
        TransformHead(LMHead(VOCAB, bias=True), LayerNorm(), init=FanIn()),
        ties=(("head/lm/w", "body/embed/token"),),
    )
    discriminator = LanguageModel(Transformer(D, embed, Stack.of([one] * 2)), TokenClassifier(1, "gelu", init=WIDE))
    ties = (("generator/body/embed", "discriminator/body/embed"),)
    return Group((("generator", generator), ("discriminator", discriminator)), ties)
