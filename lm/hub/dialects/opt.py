"""transformers' OPT."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_names
from lm.hub.tables.encoder_decoders import ATTENTION, MLP, NORMS
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs, Unused, activation, size_fields
from lm.hub.tables.tensor_names import entries


def _read(config: Config) -> Knobs:
    return {"final_norm": not config.get("_remove_final_layer_norm", False)}


def _write(knobs: Knobs) -> dict:
    return {"_remove_final_layer_norm": not knobs["final_norm"]}


MODEL_TYPES = {
    "opt": HFFormat(
        "opt",
        generation_classes("OPT", tokens=None, answers=ANSWERS),
        (
            *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim"),
            Knob("vocab", "vocab_size", 50272),
            Knob("context", "max_position_embeddings", 2048),
            Knob("embed_width", "word_embed_proj_dim", None),
            activation("activation_function", "relu"),
            Knob("norm_first", "do_layer_norm_before", True),
            Custom(("_remove_final_layer_norm",), _read, _write),
            Knob("bias", "enable_bias", True),
            Knob("affine", "layer_norm_elementwise_affine", True),
            Knob("tied", "tie_word_embeddings", True),
            Unused("dropout", "attention_dropout", "activation_dropout", "layerdrop", "init_std", "prefix"),
        ),
        (
            *decoder_names(
                ATTENTION,
                MLP,
                NORMS,
                prefix="model.decoder.",
                position="embed_positions",
                norm="final_layer_norm",
            ),
            *entries("", "model.decoder.", ("body/embed/project", "project_in"), ("head/project", "project_out")),
        ),
        tokenizer="GPT2Tokenizer",
    )
}
