"""transformers' XGLM. Its sinusoids are computed, also where files hold them."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_names
from lm.hub.tables.encoder_decoders import ATTENTION, MLP, NORMS
from lm.hub.tables.format import Fixed, HFFormat, Knob, Unused, activation, size_fields
from lm.hub.tables.tensor_names import ignored

MODEL_TYPES = {
    "xglm": HFFormat(
        "xglm",
        generation_classes("XGLM", sequences=False, tokens=None),
        (
            *size_fields("d_model", "num_layers", "attention_heads", "ffn_dim"),
            Knob("vocab", "vocab_size", 256008),
            activation("activation_function", "gelu"),
            Knob("scaled", "scale_embedding", True),
            Knob("tied", "tie_word_embeddings", True),
            Fixed("add_cross_attention", (False,)),
            Unused("max_position_embeddings"),  # a table's first length, which grows
            Unused("dropout", "attention_dropout", "activation_dropout", "layerdrop", "init_std"),
        ),
        (*decoder_names(ATTENTION, MLP, NORMS, norm="layer_norm"), *ignored("model.embed_positions.weights")),
        tokenizer="XGLMTokenizer",
    )
}
