"""transformers' Mixtral."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import ATTENTION, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob
from lm.hub.tables.rope import Rope

MODEL_TYPES = {
    "mixtral": HFFormat(
        "mixtral",
        generation_classes("Mixtral", answers=ANSWERS),
        decoder_fields(
            ROUTED,
            Knob("experts", ("num_local_experts", "num_experts"), 8),
            Knob("k", "num_experts_per_tok", 2),
            Knob("kv_heads", "num_key_value_heads", 8),
            Rope(theta=1000000.0, longest=131072),
            Knob("window", "sliding_window", None, lambda w: w or 0, lambda w: w or None),
            Knob("eps", "rms_norm_eps", 1e-5),
        ),
        decoder_names(ATTENTION, expert_names("block_sparse_moe.", parts=("w1", "w3", "w2"))),
        tokenizer=ANY_TOKENIZER,
    )
}
