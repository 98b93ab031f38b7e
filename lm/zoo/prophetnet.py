"""ProphetNet (Qi et al. 2020, arXiv 2001.04063): an encoder-decoder that learns to predict the next tokens, not just
the next one, by streams of predictors beside the decoder's text. Post-LayerNorm, biases everywhere, learned positions
behind the padding id, normed embeddings; the decoder adds relative positions that depend on the reader."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead, NoHead
from lm.model.kv_sources import CrossKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.streams import StreamAttention, StreamHead, StreamTransformer
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, Transformer, tied
from lm.zoo.bart import Decoders, shares
from lm.zoo.dialect import Class, Config, Custom, Dialect, Fixed, Knob, Knobs, Unused, act, count
from lm.zoo.family import Family
from lm.zoo.names import SAME, TensorNames, rows, unused
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
    farthest: int = 128,
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
        Attention, biases=("q", "k", "v", "o"), mask=Bidirectional(), dropout=dropout, init=init, out_init=init
    )

    def mlp(width: int | None) -> MLP:
        return MLP(width or 4 * d_model, activation, init=init, out_init=init)

    embed = Embed(vocab, position, norm=norm, dropout=dropout, init=init)
    above = Block((("attention", read(heads, size)), ("mlp", mlp(d_ff))), residual)
    attention = StreamAttention(written, own, streams, buckets, farthest, dropout, init, init)
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


def _names(config: Config) -> TensorNames:
    """What transformers' ProphetNetForConditionalGeneration calls tensors; see `lm.zoo.bart.names`."""
    table = "prophetnet.word_embeddings.weight"
    return (
        *((("decoder/embed/token", table, SAME),) if shares(config) else unused(table)),
        *_tower("encoder"),
        *_tower("decoder"),
        ("decoder/streams/w", "prophetnet.decoder.ngram_embeddings.weight", SAME),
        ("head/w", "lm_head.weight", SAME),
    )


def _tower(name: str) -> TensorNames:
    projections = (("q", "query_proj"), ("k", "key_proj"), ("v", "value_proj"), ("o", "out_proj"))
    return (
        *rows(
            f"{name}/embed/",
            f"prophetnet.{name}.",
            ("position", "position_embeddings", SAME),
            ("norm", "embeddings_layer_norm"),
        ),
        (f"{name}/embed/token", f"prophetnet.{name}.word_embeddings.weight", SAME),
        *rows(
            f"{name}/stack/{{layer}}/",
            f"prophetnet.{name}.layers.{{layer}}.",
            *((f"attention/{ours}", f"self_attn.{theirs}") for ours, theirs in projections),
            ("attention/relative", "self_attn.relative_pos_embeddings"),
            ("attention_norm", "self_attn_layer_norm"),
            *((f"cross/{ours}", f"cross_attn.{theirs}") for ours, theirs in projections),
            ("cross_norm", "cross_attn_layer_norm"),
            ("mlp/up", "feed_forward.intermediate"),
            ("mlp/down", "feed_forward.output"),
            ("mlp_norm", "feed_forward_layer_norm"),
        ),
    )


def _position(config: Config) -> Knobs:
    offset = config.get("pad_token_id", 0) + 1
    return {"position": Learned(count("max_position_embeddings")(config.get("max_position_embeddings", 512)), offset)}


def _written(knobs: Knobs) -> dict:
    return {"max_position_embeddings": knobs["position"].rows, "pad_token_id": knobs["position"].offset - 1}


def _text(config: Config) -> StreamHead:
    return StreamHead(NoHead(), config.get("ngram", 2), 0)


DIALECTS = {
    "prophetnet": Dialect(
        "prophetnet",
        {"ProphetNetForConditionalGeneration": Class(), "ProphetNetModel": Class(head=_text)},
        (
            Knob("d_model", "hidden_size"),
            Knob("layers", "num_encoder_layers"),
            Knob("heads", ("num_encoder_attention_heads", "num_attention_heads")),
            Knob("d_ff", "encoder_ffn_dim"),
            Decoders("decoder_layers", "num_decoder_layers"),
            Decoders("decoder_heads", "num_decoder_attention_heads"),
            Decoders("decoder_d_ff", "decoder_ffn_dim"),
            Knob("vocab", "vocab_size", 30522),
            Custom(("max_position_embeddings", "pad_token_id"), _position, _written),
            Knob("streams", "ngram", 2),
            Knob("buckets", "num_buckets", 32),
            Knob("farthest", "relative_max_distance", 128),
            act("activation", "activation_function", "gelu"),
            Custom(
                ("tie_word_embeddings",),
                lambda config: {"tied_head": config.get("tie_word_embeddings", True), "shared": shares(config)},
                lambda knobs: {"tie_word_embeddings": knobs["tied_head"]},
            ),
            Fixed("add_cross_attention", (True,)),
            Unused("disable_ngram_loss", "eps"),  # of the loss
            Unused("dropout", "attention_dropout", "activation_dropout", "init_std"),
        ),
        _names,
        "prophetnet.",
    )
}
