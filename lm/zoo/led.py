"""LED (Beltagy et al. 2020, arXiv 2004.05150, section 7): Longformer's attention in the encoder of a BART, which reads
16 times as far as it writes. Positions begin at row 0 of their tables."""

import dataclasses
import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Transformer
from lm.zoo import bart, longformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, layer_ties


def led(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    vocab: int = 50265,
    context: int = 16384,
    decoder_context: int = 1024,
    windows: int | tuple[int, ...] = 1024,
    max_global: int | None = None,
    activation: str = "gelu",
    dropout: float = 0.0,
    shared: bool = True,
    tied: bool = True,
) -> EncoderDecoder:
    """An LED of any shape; the decoder's sizes default to the encoder's. `windows` and `max_global` are those of
    `lm.zoo.longformer`; what sees and is seen by all is marked in the rows `encoder/global`. One token table serves
    encoder and decoder if `shared`, the head too if `tied`."""
    model = bart.variant(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        decoder_layers=decoder_layers,
        decoder_heads=decoder_heads,
        decoder_d_ff=decoder_d_ff,
        vocab=vocab,
        position=Learned(decoder_context),
        activation=activation,
        embed_norm=True,
        shared=shared,
        tied=tied,
        dropout=dropout,
    )
    assert isinstance(model, EncoderDecoder)
    init, norm = Normal(0.02), LayerNorm(1e-5)
    attention = functools.partial(
        Attention,
        heads=heads,
        head_dim=head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    reads = longformer.windowed(attention, layers, windows, max_global)
    stack = Stack.of([Block((("attention", a), ("mlp", mlp)), PostNorm(norm, dropout=dropout)) for a in reads])
    embed = Embed(vocab, Learned(context), norm=norm, dropout=dropout, init=init)
    ties = layer_ties(stack, *longformer.OUTPUTS, tower="encoder")
    return dataclasses.replace(model, encoder=Transformer(d_model, embed, stack), ties=model.ties + ties)


FAMILIES = {"led": Family(led, bart.SIZES, "arXiv 2004.05150")}
