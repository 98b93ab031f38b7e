"""transformers' EncoderDecoder of two towers, either of which may be a Bert, BertGeneration, Roberta, XLMRoberta or
Camembert."""

from lm.hub.dialects import bert, bert_generation, roberta
from lm.hub.tables.encoders import ATTENTION
from lm.hub.tables.format import Config, Custom, Fixed, HFClass, HFFormat, Knob, Knobs, Nested, Unused
from lm.hub.tables.tensor_names import LINEAR, SAME, TensorNames, entries, moved

# What is not the same on both sides is given below.
KINDS = bert.MODEL_TYPES | bert_generation.MODEL_TYPES
KINDS |= {name: roberta.MODEL_TYPES[name] for name in ("roberta", "xlm-roberta", "camembert")}
APART = ("is_decoder", "add_cross_attention", "tie_word_embeddings")
SHAPE = {name: tuple(f for f in kind.fields if f.keys[0] not in APART) for name, kind in KINDS.items()}
READS = (Fixed("is_decoder", (False,)), Fixed("add_cross_attention", (False,)), Unused("tie_word_embeddings"))
WRITES = (
    Fixed("is_decoder", (True,)),
    Fixed("add_cross_attention", (True,)),
    Fixed("cross_attention_hidden_size", (None,)),  # none of theirs can read states of another width
    Knob("tied", "tie_word_embeddings", True),
)


# What a model type does not say, as it is always so: of either tower, and of the decoder besides.
ALWAYS: dict[str, Knobs] = {"bert": {"offset": 0}, "bert-generation": {"offset": 0, "types": 0}}
HEAD: dict[str, Knobs] = {"bert": {}, "bert-generation": {"plain_head": True}}
GELU = {"head_activation": "gelu"}


def _implied(knobs: Knobs) -> Custom:
    return Custom((), lambda config: knobs, lambda knobs: {})


READ_BY = {name: (*fields, *READS, _implied(ALWAYS.get(name, {}))) for name, fields in SHAPE.items()}
WRITTEN_BY = {
    name: (*fields, *WRITES, _implied(ALWAYS.get(name, {}) | HEAD.get(name, GELU))) for name, fields in SHAPE.items()
}


def _kind(knobs: Knobs) -> str:
    return "roberta" if knobs["offset"] else "bert" if knobs["types"] else "bert-generation"


def _names(config: Config) -> TensorNames:
    """Those of either tower alone, behind its own prefix, and of the attention that joins them."""
    reader, writer = (KINDS[config[side].get("model_type", "bert")] for side in ("encoder", "decoder"))
    head = next(c for name, c in writer.classes.items() if name.endswith(("ForMaskedLM", "Decoder")))
    cross = tuple((ours.replace("attention", "cross"), theirs.removeprefix("attention.")) for ours, theirs in ATTENTION)
    return (
        *moved(_of(reader, config["encoder"]), "encoder", reader.prefix, "encoder."),
        ("encoder/stack/1/w", "enc_to_dec_proj.weight", LINEAR),
        ("encoder/stack/1/b", "enc_to_dec_proj.bias", SAME),
        *moved((*_of(writer, config["decoder"]), *head.names), "decoder", "", "decoder."),
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
            Nested("encoder", READ_BY, kind=_kind),
            Nested(
                "decoder",
                WRITTEN_BY,
                prefix="decoder_",
                whole=("tied", "head_activation", "plain_head"),
                kind=_kind,
            ),
            # Both towers' tensors are in the file, shared or not.
            Unused("tie_word_embeddings", "tie_encoder_decoder"),
        ),
        _names,
        "",
    )
}
