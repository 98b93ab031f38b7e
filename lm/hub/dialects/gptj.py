"""transformers' GPTJ and CodeGen. CodeGen's fused projection is four slices, as of four-way tensor parallelism, each of
them [q|v|k]."""

from lm.hub.tables.classes import ANSWERS, BASE_MODEL, generation_classes
from lm.hub.tables.decoders import gpt_fields, gpt_names
from lm.hub.tables.format import HFClass, HFFormat, Knob, Unused
from lm.hub.tables.tensor_names import (
    Layout,
    ModuleNames,
    TensorNames,
    attention_names,
    fused_names,
    mlp_names,
    side_by_side,
)

FIELDS = gpt_fields(
    Knob("vocab", "vocab_size", 50400),
    Knob("rotary_dim", "rotary_dim", 64),
    Knob("tied", "tie_word_embeddings", False),
    Unused("n_positions", "n_ctx"),
)
FOUR_SLICES = Layout(transpose=True, groups=4)


def names(attention: ModuleNames) -> TensorNames:
    parts = side_by_side(attention, mlp_names("mlp.fc_in", "mlp.fc_out"))
    return gpt_names(parts, (), norms=(("both_norm", "ln_1"),), buffers=("attn.bias", "attn.embed_positions"))


MODEL_TYPES = {
    "gptj": HFFormat(
        "gptj",
        generation_classes("GPTJ", tokens=None, answers=ANSWERS),
        FIELDS,
        names(attention_names("attn.", o="out_proj")),
        "transformer.",
        tokenizer="GPT2Tokenizer",
    ),
    "codegen": HFFormat(
        "codegen",
        {"CodeGenForCausalLM": HFClass(), "CodeGenModel": BASE_MODEL},
        FIELDS,
        names(fused_names("attn.qkv_proj", "attn.out_proj", FOUR_SLICES, order="qvk")),
        "transformer.",
        tokenizer="GPT2Tokenizer",
    ),
}
