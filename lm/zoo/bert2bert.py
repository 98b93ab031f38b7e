"""BERT2BERT (Rothe et al. 2020, arXiv 1907.12461): an encoder and a decoder that both begin as a BERT, or as a RoBERTa.
The decoder reads its own text causally, and the encoder's states by an attention that is new. Where the two differ in
width, a linear map stands between them."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.model.block import reading
from lm.model.kv_sources import CrossKV
from lm.model.masks import Causal
from lm.model.special.resize import Resize
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder
from lm.model.transformer import tied as ties
from lm.zoo import bert
from lm.zoo.family import Family, Sizes

SIZES: Sizes = {
    "base": bert.BASE,
    "large": bert.LARGE,
    "l-24": {**bert.LARGE, "vocab": 50358, "types": 0, "plain_head": True},  # as published
}


def bert2bert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30522,
    context: int = 512,
    offset: int = 0,
    types: int = 2,
    activation: str = "gelu",
    eps: float = 1e-12,
    decoder_layers: int | None = None,
    decoder_d_model: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    decoder_vocab: int | None = None,
    decoder_context: int | None = None,
    decoder_offset: int | None = None,
    decoder_types: int | None = None,
    decoder_activation: str | None = None,
    decoder_eps: float | None = None,
    head_activation: str | None = None,
    plain_head: bool = False,
    dropout: float = 0.0,
    tied: bool = True,
) -> EncoderDecoder:
    """Two BERTs of any shape; see `lm.zoo.bert.bert` for what the knobs mean. Those of the decoder default to the
    encoder's, d_ff to 4 times the width. `tied`: the head's table to the decoder's; the encoder has one of its own.
    With `plain_head` scores come from the table alone."""

    shape: dict[str, Any] = {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "d_ff": d_ff,
        "vocab": vocab,
        "context": context,
        "offset": offset,
        "types": types,
        "activation": activation,
        "eps": eps,
    }
    own = {
        "layers": decoder_layers,
        "d_model": decoder_d_model,
        "heads": decoder_heads,
        "d_ff": decoder_d_ff,
        "vocab": decoder_vocab,
        "context": decoder_context,
        "offset": decoder_offset,
        "types": decoder_types,
        "activation": decoder_activation,
        "eps": decoder_eps,
    }
    below: dict[str, Any] = shape | {name: value for name, value in own.items() if value is not None}
    reader = bert.bert(**shape, dropout=dropout)
    try:
        writer = bert.bert(
            **below,
            mask=Causal(),
            pretraining=("lm",) if plain_head else ("mlm",),
            head_activation=head_activation,
            dropout=dropout,
            tied=tied,
        )
    except UserError as e:  # which tells of the knobs by their names there
        raise UserError(str(e).replace("model.", "model.decoder_")) from e
    encoder, decoder = reader.body, writer.body
    if encoder.width != decoder.width:
        between = Resize(decoder.width, bias=True)
        encoder = dataclasses.replace(encoder, stack=Stack((*encoder.stack.segments, between)))
    stack = Stack.of([reading(block, CrossKV()) for block in decoder.stack.blocks()])
    decoder = dataclasses.replace(decoder, stack=stack)
    return EncoderDecoder(
        encoder, decoder, writer.head, ties((alias for alias, _ in writer.ties), "decoder/embed/token")
    )


FAMILIES = {"bert2bert": Family(bert2bert, SIZES, "arXiv 1907.12461")}
