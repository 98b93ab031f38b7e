"""transformers' OpenAIGPT: fused queries, keys and values in `Conv1D`, which is [in, out] as ours."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import gpt_fields, gpt_names
from lm.hub.tables.format import SUMMARY, HFFormat, Knob, Unused, activation
from lm.hub.tables.tensor_names import SAME, fused_names, mlp_names

ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}  # its gelu is the tanh form

MODEL_TYPES = {
    "openai-gpt": HFFormat(
        "gpt1",
        generation_classes("OpenAIGPT", lm="LMHeadModel", tokens=None),
        gpt_fields(
            Knob("vocab", "vocab_size", 40478),
            Knob("context", "n_positions", 512),
            activation("afn", "gelu", ACTIVATIONS),
            Unused(*SUMMARY),
            without=("n_inner",),
        ),
        gpt_names(
            fused_names("attn.c_attn", "attn.c_proj", SAME, SAME),
            mlp_names("mlp.c_fc", "mlp.c_proj", layout=SAME),
            token="tokens_embed",
            position="positions_embed",
            norm=None,
        ),
        "transformer.",
        tokenizer="OpenAIGPTTokenizer",
    )
}
