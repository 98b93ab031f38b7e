"""An encoder and a decoder from one encoder."""

import dataclasses
from typing import Any

import jax

from lm.adapt.surgery.surgery import language_model_of
from lm.core.component import component
from lm.core.errors import UserError
from lm.core.param import Ties, Tree
from lm.model.attention import Attention
from lm.model.block import Block, reading
from lm.model.heads import TOKENS, Head
from lm.model.kv_sources import CrossKV, SelfKV
from lm.model.masks import Bidirectional, Causal
from lm.model.special.resize import Resize
from lm.model.transformer import EncoderDecoder, Model, Transformer


@component
class ToEncoderDecoder:
    """An encoder-decoder both of whose towers begin as the model's one tower: the decoder's attention is causal, and
    each of its layers also reads the encoder, by an attention that begins anew (Rothe et al. 2020, arXiv 1907.12461:
    BERT2BERT).

    head: of the decoder; None: the model's own, with its parameters, where that predicts tokens;
    ties: of that head: (path in it, path of the tensor that it is);
    shared: whether encoder and decoder stay one set of parameters, but for what the decoder alone has (the paper's
        BERTShare)."""

    head: Any = None
    ties: Ties = ()
    shared: bool = False

    def model(self, model: Model) -> EncoderDecoder:
        one = language_model_of(model, "ToEncoderDecoder")
        head = one.head if self.head is None else self.head
        if not isinstance(head, Head) or head.predicts != TOKENS:
            raise UserError(
                f"ToEncoderDecoder needs a head that predicts tokens, which {type(head).__name__} does not: set `head`"
            )
        decoder = _writer(one.body)
        ties = self.ties
        if self.head is None:
            ties = tuple((alias, owner.replace("body/", "decoder/", 1)) for alias, owner in one.ties)
        if self.shared:
            ties = (*_shared(one.body), *ties)
        return EncoderDecoder(one.body, decoder, head, ties)

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        both = {"decoder": params["body"]} | ({} if self.shared else {"encoder": params["body"]})
        if self.shared:  # the norms that end a tower, and its tables, are its own
            own = {k: v for k, v in params["body"]["stack"].items() if not k.isdigit()}
            both["encoder"] = {"stack": own}
        return both | ({"head": params["head"]} if self.head is None and "head" in params else {})


def _writer(body: Transformer) -> Transformer:
    """The tower as a decoder that reads an encoder of its own width."""
    segments = []
    for segment in body.stack.segments:
        if isinstance(segment, Resize):
            raise UserError("ToEncoderDecoder takes a tower of one width, and this one changes it between layers")
        pattern = tuple(reading(_causal(block), CrossKV()) for block in segment.pattern)
        segments.append(dataclasses.replace(segment, pattern=pattern))
    return dataclasses.replace(body, stack=dataclasses.replace(body.stack, segments=tuple(segments)))


def _causal(block: Any) -> Block:
    own = dict(block.parts).get("attention") if isinstance(block, Block) else None
    if len(getattr(block, "parts", ())) != 2 or not isinstance(own, Attention) or not isinstance(own.source, SelfKV):
        raise UserError("ToEncoderDecoder takes layers of an attention, named so, and a feed-forward part")
    if own.mask not in (Bidirectional(), Causal()):
        raise UserError(f"ToEncoderDecoder makes causal attention of Bidirectional, not of {own.mask}")
    parts = tuple((n, dataclasses.replace(own, mask=Causal()) if n == "attention" else p) for n, p in block.parts)
    return dataclasses.replace(block, parts=parts)


def _shared(body: Transformer) -> Ties:
    """Ties of the encoder's embedding and layers to the decoder's."""
    spec = body.stack.spec(body.d_model)
    layers = [f"stack/{i}/{j}/{part}" for i in spec if i.isdigit() for j in spec[i] for part in spec[i][j]]
    return tuple((f"encoder/{path}", f"decoder/{path}") for path in ("embed", *layers))
