"""transformers' Cohere and Cohere2, whose norms of queries and keys are [heads, head_dim], as ours."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import GATED, decoder_fields, decoder_names, layer_kinds
from lm.hub.tables.format import HFFormat, Knob, Unused, flag
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import SAME, attention_names, side_by_side

ATTENTION = (
    *attention_names("self_attn."),
    ("attention/q_norm", "self_attn.q_norm", SAME),
    ("attention/k_norm", "self_attn.k_norm", SAME),
)
NAMES = decoder_names(side_by_side(ATTENTION), side_by_side(GATED), (("both_norm", "input_layernorm"),))
SHARED = (
    Knob("logit_scale", "logit_scale", 0.0625),
    Knob("attention_bias", "attention_bias", False),
    Knob("eps", "layer_norm_eps", 1e-5),
    Knob("tied", "tie_word_embeddings", True),
)
MODEL_TYPES = {
    "cohere": HFFormat(
        "cohere",
        generation_classes("Cohere", sequences=False, tokens=None),
        decoder_fields(*SHARED, Rope(theta=500000.0, longest=8192), flag("qk_norm", "use_qk_norm", False)),
        NAMES,
    ),
    "cohere2": HFFormat(
        "cohere2",
        generation_classes("Cohere2", sequences=False, tokens=None),
        decoder_fields(
            *SHARED,
            Unused("head_dim"),  # always d / heads
            Rope(longest=8192),
            Knob("window", "sliding_window", 4096),
            layer_kinds(4),
        ),
        NAMES,
    ),
}
