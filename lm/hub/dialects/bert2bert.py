"""transformers' EncoderDecoder of two towers, either of which may be a Bert, Roberta, XLMRoberta or Camembert."""

from lm.hub.dialects import bert, roberta
from lm.hub.tables.encoders import ATTENTION
from lm.hub.tables.format import Config, Custom, Fixed, HFClass, HFFormat, Knob, Knobs, Nested, Unused
from lm.hub.tables.tensor_names import LINEAR, SAME, TensorNames, entries, moved

# What is not the same on both sides is told below.
KINDS = bert.MODEL_TYPES | {name: roberta.MODEL_TYPES[name] for name in ("roberta", "xlm-roberta", "camembert")}
APART = ("is_decoder", "add_cross_attention", "tie_word_embeddings")
SHAPE = {name: tuple(f for f in kind.fields if f.keys[0] not in APART) for name, kind in KINDS.items()}
READS = (Fixed("is_decoder", (False,)), Fixed("add_cross_attention", (False,)), Unused("tie_word_embeddings"))
WRITES = (
    Fixed("is_decoder", (True,)),
    Fixed("add_cross_attention", (True,)),
    Fixed("cross_attention_hidden_size", (None,)),  # none of theirs can read states of another width
    Knob("tied", "tie_word_embeddings", True),
)
GELU = Custom((), lambda config: {"head_activation": "gelu"}, lambda knobs: {})  # whatever the layers have


def _kind(knobs: Knobs) -> str:
    return "roberta" if knobs["offset"] else "bert"


def _names(config: Config) -> TensorNames:
    """Those of either tower alone, behind its own prefix, and of the attention that joins them."""
    reader, writer = (KINDS[config[side].get("model_type", "bert")] for side in ("encoder", "decoder"))
    masked = next(c for name, c in writer.classes.items() if name.endswith("ForMaskedLM"))
    cross = tuple((ours.replace("attention", "cross"), theirs.removeprefix("attention.")) for ours, theirs in ATTENTION)
    return (
        *moved(_of(reader, config["encoder"]), "encoder", reader.prefix, "encoder."),
        ("encoder/stack/1/w", "enc_to_dec_proj.weight", LINEAR),
        ("encoder/stack/1/b", "enc_to_dec_proj.bias", SAME),
        *moved((*_of(writer, config["decoder"]), *masked.names), "decoder", "", "decoder."),
        *entries(
            "decoder/stack/{layer}/",
            f"decoder.{writer.prefix}encoder.layer.{{layer}}.crossattention.",
            *cross,
            ("cross_norm", "output.LayerNorm"),
        ),
    )


def _of(kind: HFFormat, config: Config) -> TensorNames:
    return kind.names(config) if callable(kind.names) else kind.names


MODEL_TYPES = {
    "encoder-decoder": HFFormat(
        "bert2bert",
        {"EncoderDecoderModel": HFClass()},
        (
            Nested("encoder", {name: (*fields, *READS) for name, fields in SHAPE.items()}, kind=_kind),
            Nested(
                "decoder",
                {name: (*fields, *WRITES, *(() if name == "bert" else (GELU,))) for name, fields in SHAPE.items()},
                prefix="decoder_",
                whole=("tied", "head_activation"),
                kind=_kind,
            ),
            # Both towers' tensors are in the file, shared or not.
            Unused("tie_word_embeddings", "tie_encoder_decoder"),
        ),
        _names,
        "",
    )
}
