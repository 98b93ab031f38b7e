"""transformers' GPT2: fused queries, keys and values in `Conv1D`, which is [in, out] as ours."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import gpt_fields, gpt_names
from lm.hub.tables.format import SUMMARY, Fixed, HFFormat, Knob, Unused
from lm.hub.tables.tensor_names import SAME, fused_names, mlp_names

MODEL_TYPES = {
    "gpt2": HFFormat(
        "gpt2",
        generation_classes("GPT2", lm="LMHeadModel", tokens="classifier", answers=ANSWERS),
        gpt_fields(
            Knob("scaled", "scale_attn_weights", True),
            Knob("by_layer", "scale_attn_by_inverse_layer_idx", False),
            Fixed("add_cross_attention", (False,)),
            Unused("reorder_and_upcast_attn", *SUMMARY),
        ),
        gpt_names(
            fused_names("attn.c_attn", "attn.c_proj", SAME, SAME), mlp_names("mlp.c_fc", "mlp.c_proj", layout=SAME)
        ),
        "transformer.",
        tokenizer="GPT2Tokenizer",
    )
}
