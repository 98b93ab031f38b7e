"""T5Gemma (Zhang et al. 2025, arXiv 2504.06225): an encoder and a decoder that begin as Gemma 2s, or have T5's shapes.
The encoder sees both ways, in windows to both sides; the decoder has an attention to it between its own and the MLP,
normed on both sides as these. The two may differ in shape, width included; each has a token table of its own."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.model.block import reading
from lm.model.heads import NoHead
from lm.model.kv_sources import CrossKV
from lm.model.rotary import Scaling
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, LanguageModel, Model
from lm.zoo import gemma
from lm.zoo.family import Family, Sizes

_2B, _9B = gemma.SIZES_2["2b"], gemma.SIZES_2["9b"]
_T5 = {"head_dim": 64, "scalar": 64.0}
SIZES: Sizes = {
    "2b-2b": _2B,
    "9b-2b": {**_9B, **{f"decoder_{name}": value for name, value in _2B.items()}},
    "9b-9b": _9B,
    "s-s": {"layers": 8, "d_model": 512, "heads": 8, "d_ff": 1024, **_T5},
    "b-b": {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 2048, **_T5},
    "l-l": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 2816, **_T5},
    "ml-ml": {"layers": 26, "d_model": 1152, "heads": 4, "d_ff": 6912},
    "xl-xl": {"layers": 24, "d_model": 2048, "heads": 32, "d_ff": 5120, **_T5},
}


def t5gemma(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int = 256,
    vocab: int = 256000,
    scalar: float = 256.0,
    layer_types: tuple[str, ...] = (),
    window: int = 4096,
    decoder_layers: int | None = None,
    decoder_d_model: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    decoder_kv_heads: int | None = None,
    decoder_head_dim: int | None = None,
    decoder_vocab: int | None = None,
    decoder_scalar: float | None = None,
    decoder_layer_types: tuple[str, ...] = (),
    decoder_window: int | None = None,
    pattern: int = 2,
    cap: float = 50.0,
    final_cap: float = 30.0,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    eps: float = 1e-6,
    tied: bool = True,
    encoder_only: bool = False,
) -> Model:
    """A T5Gemma of any shape; see `lm.zoo.gemma.gemma` for what the knobs mean. Those of the decoder default to the
    encoder's, but for `decoder_layer_types`, which follow from `pattern` too. An encoder's query sees `window` tokens
    on either side. `tied`: the head's table to the decoder's. With `encoder_only` the encoder alone, whose states are
    the result."""
    both = {
        "sandwich": True,
        "pattern": pattern,
        "cap": cap,
        "final_cap": final_cap,
        "activation": activation,
        "theta": theta,
        "scaling": scaling,
        "attention_bias": attention_bias,
        "eps": eps,
    }
    shape: dict[str, Any] = {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "d_ff": d_ff,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab": vocab,
        "scalar": scalar,
    }
    own = {
        "layers": decoder_layers,
        "d_model": decoder_d_model,
        "heads": decoder_heads,
        "d_ff": decoder_d_ff,
        "kv_heads": decoder_kv_heads,
        "head_dim": decoder_head_dim,
        "vocab": decoder_vocab,
        "scalar": decoder_scalar,
    }
    above = shape | both | {"layer_types": layer_types, "window": window + 1, "bidirectional": True}
    below = shape | {name: value for name, value in own.items() if value is not None} | both
    below |= {"layer_types": decoder_layer_types, "window": window if decoder_window is None else decoder_window}
    encoder = gemma.gemma(**above).body
    if encoder_only:
        return LanguageModel(encoder, NoHead())
    try:
        writer = gemma.gemma(**below)
    except UserError as e:  # which tells of the knobs by their names there
        raise UserError(str(e).replace("model.", "model.decoder_")) from e
    stack = writer.body.stack
    source = CrossKV() if encoder.width == writer.body.width else CrossKV(width=encoder.width)
    stack = Stack.of([reading(block, source) for block in stack.blocks()], norm=stack.norm)
    decoder = dataclasses.replace(writer.body, stack=stack)
    return EncoderDecoder(encoder, decoder, writer.head, (("head/w", "decoder/embed/token"),) if tied else ())


FAMILIES = {"t5gemma": Family(t5gemma, SIZES, "arXiv 2504.06225")}
