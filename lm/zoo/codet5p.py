"""CodeT5+ of 2B to 16B (Wang et al. 2023, arXiv 2305.07922): CodeGen's decoder, frozen in the paper, whose top layers
read an encoder in the shape of the smallest CodeGen, projected to the decoder's width. (Smaller ones are T5s.)

The paper does not say where in a layer it reads: here at its end, behind a norm of its own."""

import dataclasses

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Causal, MaskKind
from lm.model.mlp import MLP
from lm.model.rotary import Rotary
from lm.model.special.resize import Resize
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Transformer
from lm.zoo.family import Family
from lm.zoo.gptj import CODEGEN
from lm.zoo.parts import head_size, parallel, rotated

SIZES = {size: CODEGEN[size] for size in ("2b", "6b", "16b")}
_READER = CODEGEN["350m"]


def codet5p(
    *,
    layers: int,
    d_model: int,
    heads: int,
    rotary_dim: int,
    cross_layers: int = 1,
    encoder_layers: int = _READER["layers"],
    encoder_d_model: int = _READER["d_model"],
    encoder_heads: int = _READER["heads"],
    encoder_rotary_dim: int = _READER["rotary_dim"],
    vocab: int = 51200,
    eps: float = 1e-5,
) -> EncoderDecoder:
    """A CodeT5+ of any shape: so many `layers` write, of which the last `cross_layers` read the encoder."""
    init, norm = Normal(0.02), LayerNorm(eps)

    def block(d_model: int, heads: int, rotary_dim: int, mask: MaskKind) -> Block:
        size = head_size(d_model, heads)
        rotary = Rotary(fraction=rotated(rotary_dim, size), interleaved=True)
        attention = Attention(heads, size, mask=mask, rotary=rotary, projections=Projections(init=init, out_init=init))
        return parallel(attention, MLP(4 * d_model, init=init, out_init=init), norm)

    reader = block(encoder_d_model, encoder_heads, encoder_rotary_dim, Bidirectional())
    writer = block(d_model, heads, rotary_dim, Causal())
    cross = Attention(
        heads,
        head_size(d_model, heads),
        mask=Bidirectional(),
        source=CrossKV(),
        projections=Projections(init=init, out_init=init),
    )
    top = dataclasses.replace(writer, parts=(*writer.parts, ("cross", cross)))
    segments = Stack.of([reader] * encoder_layers).segments
    above = Stack((*segments, Resize(d_model, norm, bias=True, init=init)))
    below = Stack.of([writer] * (layers - cross_layers) + [top] * cross_layers, norm=norm)
    return EncoderDecoder(
        Transformer(encoder_d_model, Embed(vocab, init=init), above),
        Transformer(d_model, Embed(vocab, init=init), below),
        LMHead(vocab, bias=True, init=init),
    )


FAMILIES = {"codet5p": Family(codet5p, SIZES, "arXiv 2305.07922")}
