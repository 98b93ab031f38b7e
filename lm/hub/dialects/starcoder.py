"""transformers' GPTBigCode ([q|k|v] with one key head, [heads, 3, head_dim] with as many as heads) and Starcoder2."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names, gpt_fields, gpt_names
from lm.hub.tables.format import ANY_TOKENIZER, Fixed, HFFormat, Knob, Unused, activation
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_KV_HEAD, fused_names, mlp_names

MLP = mlp_names("mlp.c_fc", "mlp.c_proj")
MODEL_TYPES = {
    "gpt_bigcode": HFFormat(
        "starcoder",
        generation_classes("GPTBigCode", tokens="classifier"),
        gpt_fields(
            Knob("multi_query", "multi_query", True),
            Knob("scaled", "scale_attn_weights", True),
            activation("activation_function", "gelu_pytorch_tanh"),
            Fixed("add_cross_attention", (False,)),
            Unused("num_key_value_heads", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"),
        ),
        gpt_names(fused_names("attn.c_attn", "attn.c_proj", BY_KV_HEAD), MLP),
        "transformer.",
        tokenizer=ANY_TOKENIZER,
        tokenizer_before="GPT2Tokenizer",
    ),
    "starcoder2": HFFormat(
        "starcoder2",
        generation_classes("Starcoder2"),
        decoder_fields(
            Knob("kv_heads", "num_key_value_heads", 2),
            Knob("vocab", "vocab_size", 49152),
            activation("hidden_act", "gelu_pytorch_tanh"),
            Rope(longest=4096),
            Knob("window", "sliding_window", None, lambda w: w or 0, lambda w: w or None),
            Knob("bias", "use_bias", True),
            Knob("eps", "norm_epsilon", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Unused("residual_dropout", "embedding_dropout"),
            without=("head_dim",),
        ),
        decoder_names(mlp=MLP),
        tokenizer="GPT2Tokenizer",
    ),
}
