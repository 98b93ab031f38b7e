"""transformers' GPTNeo: the pattern of local and global layers as `attention_types`."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import gpt_fields, gpt_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs, Unused, size_fields
from lm.hub.tables.tensor_names import attention_names, mlp_names
from lm.zoo.parts import GLOBAL, LOCAL

THEIRS = {"global": GLOBAL, "local": LOCAL}


def _read(config: Config) -> Knobs:
    """attention_types [[["global", "local"], 12]]: patterns and how often each is repeated."""
    types = config.get("attention_types", [[["global", "local"], 12]])
    return {"layer_types": tuple(THEIRS[kind] for pattern, times in types for _ in range(times) for kind in pattern)}


def _write(knobs: Knobs) -> dict:
    layers = knobs["layers"]
    kinds = knobs["layer_types"] or tuple((GLOBAL, LOCAL)[i % 2] for i in range(layers))
    return {"attention_types": [[["global" if kind == GLOBAL else "local"], 1] for kind in kinds]}


MODEL_TYPES = {
    "gpt_neo": HFFormat(
        "gpt_neo",
        generation_classes("GPTNeo", tokens="classifier", answers=ANSWERS),
        gpt_fields(
            *size_fields("hidden_size", "num_layers", "num_heads"),
            Knob("d_ff", "intermediate_size", None),
            Knob("context", "max_position_embeddings", 2048),
            Custom(("attention_types", "attention_layers"), _read, _write),
            Knob("window", "window_size", 256),
            Unused("resid_dropout", "embed_dropout", "attention_dropout", "classifier_dropout"),
        ),
        gpt_names(
            attention_names("attn.attention.", o="out_proj"),
            mlp_names("mlp.c_fc", "mlp.c_proj"),
            buffers=("attn.attention.bias",),
        ),
        "transformer.",
        tokenizer="GPT2Tokenizer",
    )
}
