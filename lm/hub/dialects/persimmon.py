"""transformers' Persimmon."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob, Unused, activation
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_HEAD, fused_names, mlp_names

MODEL_TYPES = {
    "persimmon": HFFormat(
        "persimmon",
        generation_classes("Persimmon"),
        decoder_fields(
            Knob("vocab", "vocab_size", 262144),
            activation("hidden_act", "relu2"),
            Rope(fraction=0.5, longest=16384),
            Knob("qk_norm", "qk_layernorm", True),
            Knob("eps", "layer_norm_eps", 1e-5),
            Unused("hidden_dropout"),
            without=("num_key_value_heads", "head_dim"),
        ),
        decoder_names(
            (
                *fused_names("self_attn.query_key_value", "self_attn.dense", BY_HEAD),
                ("attention/q_norm", "self_attn.q_layernorm"),
                ("attention/k_norm", "self_attn.k_layernorm"),
            ),
            mlp_names("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            norm="final_layernorm",
        ),
        tokenizer=ANY_TOKENIZER,
    )
}
