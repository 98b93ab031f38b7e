"""DeepSeekMoE's files, in the words of the code that they came with."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, GATED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import Fixed, HFFormat, Knob, Unused

MODEL_TYPES = {
    "deepseek": HFFormat(
        "deepseek_moe",
        generation_classes("Deepseek", tokens=None),
        decoder_fields(
            Knob("experts", "n_routed_experts", 0, lambda value: value or 0),
            Knob("k", "num_experts_per_tok"),
            Knob("expert_ff", "moe_intermediate_size", 1407),
            Knob("shared", "n_shared_experts", 0, lambda value: value or 0),
            Knob("first_dense", "first_k_dense_replace", 0),
            Knob("every", "moe_layer_freq", 1),
            Knob("normalize", "norm_topk_prob", False),
            Knob("attention_bias", "attention_bias", False),
            Fixed("scoring_func", ("softmax",)),
            Unused("aux_loss_alpha", "seq_aux"),
            without=("head_dim",),
        ),
        decoder_names(ATTENTION, (*GATED, *expert_names(shared="shared_experts"))),
    )
}
