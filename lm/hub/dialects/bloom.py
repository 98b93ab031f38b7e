"""transformers' Bloom."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import NORMS, decoder_names
from lm.hub.tables.format import HFFormat, Knob, Unused, size_fields
from lm.hub.tables.tensor_names import BY_HEAD, fused_names, mlp_names

MODEL_TYPES = {
    "bloom": HFFormat(
        "bloom",
        generation_classes("Bloom", tokens="classifier", answers=ANSWERS),
        (
            *size_fields("n_embed", "n_layer", "n_head"),
            Knob("vocab", "vocab_size", 250880),
            Knob("eps", "layer_norm_epsilon", 1e-5),
            Knob("residual_from_norm", "apply_residual_connection_post_layernorm", False),
            Knob("tied", "tie_word_embeddings", True),
            Unused("hidden_dropout", "attention_dropout", "pretraining_tp", "slow_but_exact"),
        ),
        decoder_names(
            fused_names("self_attention.query_key_value", "self_attention.dense", BY_HEAD),
            mlp_names("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            NORMS,
            prefix="transformer.",
            layers="h",
            token="word_embeddings",
            embed_norm="word_embeddings_layernorm",
            norm="ln_f",
        ),
        "transformer.",
    )
}
