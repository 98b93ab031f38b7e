"""The Transformer (Vaswani et al. 2017, arXiv 1706.03762), which BART, Marian, M2M-100, AlphaCode and others vary.

Encoder and decoder norm after each sub-layer, without a final norm; sinusoids are added to embeddings times sqrt(d);
one table serves both sides and the softmax. Whether attention has biases the paper leaves open: the published sizes
come closest without."""

import math

from lm.core.param import Initializer, Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import CrossKV, KVSource, SelfKV
from lm.model.layers import LayerNorm, Norm
from lm.model.masks import Bidirectional, Causal, MaskKind
from lm.model.mlp import MLP
from lm.model.positions import Learned, Sinusoidal
from lm.model.residual import PostNorm, PreNorm
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Model, Transformer
from lm.model.transformer import tied as ties_to
from lm.zoo.family import Family
from lm.zoo.parts import head_size, language_model

SIZES = {
    "base": {"layers": 6, "d_model": 512, "heads": 8},
    "big": {"layers": 6, "d_model": 1024, "heads": 16},
}


def transformer(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv: int | None = None,
    d_ff: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    vocab: int = 37000,
    decoder_vocab: int | None = None,
    position: Learned | Sinusoidal = Sinusoidal(),
    activation: str = "relu",
    norm: Norm = LayerNorm(1e-6),
    norm_first: bool = False,
    embed_norm: bool = False,
    token_norm: bool = False,
    scaled: bool = True,
    attention_bias: bool = False,
    mlp_bias: bool = True,
    logit_offset: bool = False,
    shared: bool = True,
    tied: bool = True,
    decoder_only: bool = False,
    dropout: float = 0.0,
    init: Initializer = Normal(0.02),
) -> Model:
    """An encoder-decoder of any shape. d_ff defaults to 4 d_model, and the decoder's sizes to the encoder's; `kv` is
    how many heads of keys and values there are, by default as many as of queries.

    With `norm_first` sub-layers norm what goes in, and a final norm ends each tower. `embed_norm` norms embeddings (in
    the decoder, with `token_norm`, before positions are added); token tables are multiplied by sqrt(d) if `scaled`.
    `logit_offset` is a buffer added to the logits. With `shared` one table serves encoder and decoder, with `tied` the
    head too; two vocabularies (`decoder_vocab`) cannot be shared. With `decoder_only` the decoder alone, which then
    reads nothing but its own text."""
    residual = PreNorm(norm, dropout) if norm_first else PostNorm(norm, dropout=dropout)
    final = norm if norm_first else None

    def attention(heads: int, mask: MaskKind, source: KVSource = SelfKV()) -> Attention:
        return Attention(
            heads=heads,
            head_dim=head_size(d_model, heads),
            kv_heads=kv,
            mask=mask,
            source=source,
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
            dropout=dropout,
        )

    def mlp(width: int | None) -> MLP:
        return MLP(width or 4 * d_model, activation, bias=mlp_bias, init=init, out_init=init)

    def tower(vocab: int, blocks: list[Block], embed_norm: Norm | None, token_norm: Norm | None = None) -> Transformer:
        scale = math.sqrt(d_model) if scaled and token_norm is None else 1.0  # which that norm would undo
        embed = Embed(vocab, position, norm=embed_norm, token_norm=token_norm, scale=scale, dropout=dropout, init=init)
        return Transformer(d_model, embed, Stack.of(blocks, norm=final))

    above = (("attention", attention(heads, Bidirectional())), ("mlp", mlp(d_ff)))
    heads = decoder_heads or heads
    cross = () if decoder_only else (("cross", attention(heads, Bidirectional(), CrossKV())),)
    below = (("attention", attention(heads, Causal())), *cross, ("mlp", mlp(decoder_d_ff or d_ff)))
    after, before = (norm if embed_norm else None), (norm if token_norm else None)
    written = decoder_vocab or vocab
    encoder = tower(vocab, [Block(above, residual)] * layers, after)
    decoder = tower(written, [Block(below, residual)] * (decoder_layers or layers), None if before else after, before)
    head = LMHead(written, offset=logit_offset, init=init)
    if decoder_only:
        return language_model(decoder, head, tied)
    aliases = (["encoder/embed/token"] if shared else []) + (["head/w"] if tied else [])
    return EncoderDecoder(encoder, decoder, head, ties_to(aliases, "decoder/embed/token"))


FAMILIES = {"transformer": Family(transformer, SIZES, "arXiv 1706.03762")}
