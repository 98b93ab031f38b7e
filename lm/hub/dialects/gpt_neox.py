"""transformers' GPTNeoX. Its head is called `embed_out`, or `lm_head` in later files."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import NORMS, decoder_fields, decoder_names
from lm.hub.tables.format import HFFormat, Knob, Unused, activation
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_HEAD, SAME, fused_names, mlp_names, side_by_side

LAYER = (
    *NORMS,
    *fused_names("attention.query_key_value", "attention.dense", BY_HEAD),
    *mlp_names("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
)
MODEL_TYPES = {
    "gpt_neox": HFFormat(
        "gpt_neox",
        generation_classes("GPTNeoX", tokens="classifier", answers=ANSWERS),
        decoder_fields(
            Knob("vocab", "vocab_size", 50432),
            activation("hidden_act", "gelu"),
            Rope(fraction=0.25, theta_key="rotary_emb_base", fraction_key="rotary_pct"),
            Knob("side_by_side", "use_parallel_residual", True),
            Knob("attention_bias", "attention_bias", True),
            Knob("eps", "layer_norm_eps", 1e-5),
            Unused("hidden_dropout", "classifier_dropout"),
            without=("num_key_value_heads", "head_dim"),
        ),
        (
            *decoder_names(
                LAYER,
                side_by_side(LAYER),
                (),
                prefix="gpt_neox.",
                token="embed_in",
                norm="final_layer_norm",
                head="embed_out",
                buffers=("attention.bias",),
            ),
            ("head/w", "lm_head.weight", SAME),
        ),
        "gpt_neox.",
        tokenizer="GPTNeoXTokenizer",
    )
}
