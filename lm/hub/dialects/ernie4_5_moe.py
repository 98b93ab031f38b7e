"""transformers' Ernie4_5_Moe."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, GATED, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs, flag, number
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import LAYER, Layout

NORM_MIN = "moe_norm_min"


def _check_norm(config: Config) -> Knobs:
    """The least that a sum of weights counts for: what it is at most where it changes nothing."""
    number(NORM_MIN, config.get(NORM_MIN, 1e-12), most=1e-6)
    return {}


MODEL_TYPES = {
    "ernie4_5_moe": HFFormat(
        "ernie4_5_moe",
        generation_classes("Ernie4_5_Moe", sequences=False, tokens=None),
        decoder_fields(
            ROUTED,
            Knob("kv_heads", "num_key_value_heads", 4),
            Rope(theta=500000.0, longest=131072),
            flag("bias", "use_bias", False),
            Knob("eps", "rms_norm_eps", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Knob("experts", ("moe_num_experts", "num_experts"), 64),
            Knob("k", ("moe_k", "num_experts_per_tok"), 6),
            Knob("expert_ff", "moe_intermediate_size", 1536),
            Knob("shared", "moe_num_shared_experts", 2, lambda value: value or 0),
            Knob("first_dense", "moe_layer_start_index", 1),
            Knob(
                "last",
                "moe_layer_end_index",
                -1,
                lambda last: None if last == -1 else last,
                lambda last: -1 if last is None else last,
            ),
            Knob("every", "moe_layer_interval", 1),
            Custom((NORM_MIN,), _check_norm, lambda knobs: {}),
        ),
        (
            *decoder_names(ATTENTION, (*GATED, *expert_names(shared="shared_experts"))),
            (
                f"{LAYER}mlp/router/balance",
                "model.layers.{layer}.mlp.moe_statics.e_score_correction_bias",
                Layout(split=1),
            ),
        ),
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
