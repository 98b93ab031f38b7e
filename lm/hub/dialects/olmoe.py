"""transformers' Olmoe."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import HFFormat, Knob, flag
from lm.hub.tables.rope import Rope

MODEL_TYPES = {
    "olmoe": HFFormat(
        "olmoe",
        generation_classes("Olmoe", sequences=False, tokens=None),
        decoder_fields(
            ROUTED,
            Knob("experts", ("num_experts", "num_local_experts"), 64),
            Knob("k", "num_experts_per_tok", 8),
            flag("normalize", "norm_topk_prob", False),
            Knob("attention_bias", "attention_bias", False),
            Knob("clip", "clip_qkv", None),
            Knob("eps", "rms_norm_eps", 1e-5),
            Rope(longest=4096),
        ),
        decoder_names(ATTENTION, expert_names()),
        tokenizer="GPTNeoXTokenizer",
    )
}
