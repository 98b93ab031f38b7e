"""ProphetNet (Qi et al. 2020, arXiv 2001.04063): an encoder-decoder that learns to predict the next tokens, not just
the next one, by streams of predictors beside the decoder's text. Post-LayerNorm, biases everywhere, learned positions
behind the padding id, normed embeddings; the decoder adds relative positions that depend on the reader."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.streams import StreamAttention, StreamHead, StreamTransformer
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Transformer, tied
from lm.zoo.family import Family
from lm.zoo.parts import head_size

SIZES = {"large": {"layers": 12, "d_model": 1024, "heads": 16}}


def prophetnet(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    vocab: int = 30522,
    position: Learned = Learned(512, 1),
    streams: int = 2,
    buckets: int = 32,
    max_distance: int = 128,
    activation: str = "gelu",
    dropout: float = 0.0,
    shared: bool = True,
    tied_head: bool = True,
) -> EncoderDecoder:
    """A ProphetNet of any shape, which predicts `streams` tokens at once. d_ff defaults to 4 d_model, and the decoder's
    sizes to the encoder's. With `shared` one table serves encoder and decoder, with `tied_head` the head too."""
    init, norm = Normal(0.02), LayerNorm(1e-5)
    residual = PostNorm(norm, dropout=dropout)
    size, written = head_size(d_model, heads), decoder_heads or heads
    own = head_size(d_model, written)
    read = functools.partial(
        Attention,
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        mask=Bidirectional(),
        dropout=dropout,
    )

    def mlp(width: int | None) -> MLP:
        return MLP(width or 4 * d_model, activation, init=init, out_init=init)

    embed = Embed(vocab, position, norm=norm, dropout=dropout, init=init)
    above = Block((("attention", read(heads, size)), ("mlp", mlp(d_ff))), residual)
    attention = StreamAttention(written, own, streams, buckets, max_distance, dropout, init, init)
    cross = read(written, own, source=CrossKV())
    below = Block((("attention", attention), ("cross", cross), ("mlp", mlp(decoder_d_ff or d_ff))), residual)
    aliases = (["encoder/embed/token"] if shared else []) + (["head/w"] if tied_head else [])
    return EncoderDecoder(
        Transformer(d_model, embed, Stack.of([above] * layers)),
        StreamTransformer(d_model, embed, Stack.of([below] * (decoder_layers or layers)), streams, init),
        StreamHead(LMHead(vocab, init=init), streams),
        tied(aliases, "decoder/embed/token"),
    )


FAMILIES = {"prophetnet": Family(prophetnet, SIZES, "arXiv 2001.04063")}
