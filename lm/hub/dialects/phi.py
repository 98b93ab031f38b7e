"""transformers' Phi."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import HFFormat, Knob, Unused, activation
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import attention_names, mlp_names, side_by_side

ATTENTION = (
    *attention_names("self_attn.", o="dense"),
    ("attention/q_norm", "self_attn.q_layernorm"),
    ("attention/k_norm", "self_attn.k_layernorm"),
)
MODEL_TYPES = {
    "phi": HFFormat(
        "phi",
        generation_classes("Phi"),
        decoder_fields(
            Knob("vocab", "vocab_size", 51200),
            activation("hidden_act", "gelu_new"),
            Rope(fraction=0.5),
            Knob("qk_norm", "qk_layernorm", False),
            Knob("eps", "layer_norm_eps", 1e-5),
            Unused("resid_pdrop", "embd_pdrop"),
        ),
        decoder_names(
            side_by_side(ATTENTION),
            side_by_side(mlp_names("mlp.fc1", "mlp.fc2")),
            (("both_norm", "input_layernorm"),),
            norm="final_layernorm",
        ),
        tokenizer="GPT2Tokenizer",
    )
}
