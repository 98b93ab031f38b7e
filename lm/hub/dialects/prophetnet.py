"""transformers' ProphetNet."""

from lm.hub.tables.encoder_decoders import DecoderSize, pair_fields, pair_names, shares
from lm.hub.tables.format import (
    Config,
    Custom,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    count,
)
from lm.hub.tables.tensor_names import SAME, TensorNames, attention_names, mlp_names, norm_names, tower_names
from lm.model.heads import NoHead
from lm.model.positions import Learned
from lm.model.special.streams import StreamHead

PROJECTIONS = ("query_proj", "key_proj", "value_proj", "out_proj")
LAYER = (
    *attention_names("self_attn.", *PROJECTIONS),
    ("attention/relative", "self_attn.relative_pos_embeddings"),
    *attention_names("cross_attn.", *PROJECTIONS, part="cross"),
    ("cross_norm", "cross_attn_layer_norm"),
    *mlp_names("feed_forward.intermediate", "feed_forward.output"),
    *norm_names("self_attn_layer_norm", "feed_forward_layer_norm"),
)


def _tower(name: str) -> TensorNames:
    return tower_names(
        name,
        f"prophetnet.{name}.",
        LAYER,
        layers="layers",
        token="word_embeddings",
        position="position_embeddings",
        embed_norm="embeddings_layer_norm",
    )


def _names(config: Config) -> TensorNames:
    return (
        *pair_names(config, "prophetnet.word_embeddings.weight", _tower("encoder"), _tower("decoder")),
        ("decoder/streams/w", "prophetnet.decoder.ngram_embeddings.weight", SAME),
        ("head/w", "lm_head.weight", SAME),
    )


def _position(config: Config) -> Knobs:
    offset = config.get("pad_token_id", 0) + 1
    return {"position": Learned(count("max_position_embeddings")(config.get("max_position_embeddings", 512)), offset)}


def _written(knobs: Knobs) -> dict:
    return {"max_position_embeddings": knobs["position"].rows, "pad_token_id": knobs["position"].offset - 1}


def _text(config: Config) -> StreamHead:
    return StreamHead(NoHead(), config.get("ngram", 2), 0)


MODEL_TYPES = {
    "prophetnet": HFFormat(
        "prophetnet",
        {"ProphetNetForConditionalGeneration": HFClass(), "ProphetNetModel": HFClass(head=_text)},
        pair_fields(
            Knob("d_model", "hidden_size"),
            Knob("layers", "num_encoder_layers"),
            Knob("heads", ("num_encoder_attention_heads", "num_attention_heads")),
            DecoderSize("decoder_layers", "num_decoder_layers"),
            DecoderSize("decoder_heads", "num_decoder_attention_heads"),
            Knob("vocab", "vocab_size", 30522),
            Custom(("max_position_embeddings", "pad_token_id"), _position, _written),
            Knob("streams", "ngram", 2),
            Knob("buckets", "num_buckets", 32),
            Knob("max_distance", "relative_max_distance", 128),
            Custom(
                ("tie_word_embeddings",),
                lambda config: {"tied_head": config.get("tie_word_embeddings", True), "shared": shares(config)},
                lambda knobs: {"tie_word_embeddings": knobs["tied_head"]},
            ),
            Fixed("add_cross_attention", (True,)),
            Unused("disable_ngram_loss", "eps"),  # of the loss
        ),
        _names,
        "prophetnet.",
        tokenizer="ProphetNetTokenizer",
    )
}
