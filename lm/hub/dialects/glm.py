"""transformers' Glm and Glm4, which has norms on both sides of each sub-layer."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, FUSED_GATE, NORMS, decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import sandwich_names

FIELDS = decoder_fields(
    Knob("head_dim", "head_dim", 128),
    Knob("kv_heads", "num_key_value_heads", 2),
    Rope(fraction=0.5, longest=131072),
    Knob("qkv_bias", "attention_bias", True),
    Knob("eps", "rms_norm_eps", 1.5625e-07),
)
BOTH_SIDES = sandwich_names(
    ("input_layernorm", "post_self_attn_layernorm"), ("post_attention_layernorm", "post_mlp_layernorm")
)
MODEL_TYPES = {
    "glm": HFFormat(
        "glm4",
        generation_classes("Glm"),
        FIELDS,
        decoder_names(ATTENTION, FUSED_GATE, NORMS),
        tokenizer=ANY_TOKENIZER,
    ),
    "glm4": HFFormat(
        "glm4-0414",
        generation_classes("Glm4"),
        FIELDS,
        decoder_names(ATTENTION, FUSED_GATE, BOTH_SIDES),
        tokenizer=ANY_TOKENIZER,
    ),
}
