"""Encoder-decoders of T5's line."""

from tests.golden.case import Case

T5 = {
    "vocab_size": 97,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 10,
    "relative_attention_max_distance": 15,
    "layer_norm_epsilon": 1e-2,
    "decoder_start_token_id": 2,
}
# Gated units grow where weights are this large, and float32's rounding with them: fewer of them.
GATED = {**T5, "d_kv": 3, "d_ff": 10, "num_layers": 2}
HEAD = ("lm_head.weight",)  # 1.1 and its descendants have one of their own, which transformers ties if a file lacks it
EVEN = {"num_decoder_layers": 3, "relative_attention_num_buckets": 12, "num_labels": 3}
BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
GRADIENTS = ("shared.weight", BIAS, "decoder.block.1.layer.1.EncDecAttention.k.weight")
LONG = {**T5, "local_radius": 4}
GLOBAL = {**LONG, "d_kv": 3, "num_layers": 2, "encoder_attention_type": "transient-global", "global_block_size": 4}
GRADIENTS_LOCAL = (BIAS.replace("Self", "LocalSelf"), "encoder.block.1.layer.0.LocalSelfAttention.k.weight")
GRADIENTS_GLOBAL = (
    "encoder.block.0.layer.0.TransientGlobalSelfAttention.global_relative_attention_bias.weight",
    "encoder.block.1.layer.0.TransientGlobalSelfAttention.global_input_layer_norm.weight",
    "encoder.block.1.layer.0.TransientGlobalSelfAttention.k.weight",
)

SWITCH = {
    **{name: value for name, value in T5.items() if name != "num_layers"},
    "num_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 2,
    "num_experts": 4,
    "expert_capacity": 6,
}
SPARSE = "encoder.block.1.layer.1.mlp."

CASES: dict[str, Case] = {
    "switch": Case(
        "SwitchTransformersForConditionalGeneration",
        SWITCH,
        (f"{SPARSE}router.classifier.weight", f"{SPARSE}experts.expert_2.wi.weight", "shared.weight"),
        positions="index",
    ),
    "switch_untied": Case(
        "SwitchTransformersForConditionalGeneration",
        {
            **SWITCH,
            "num_decoder_layers": 3,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 0,
            "encoder_sparse_step": 3,
            "router_bias": True,
            "dense_act_fn": "gelu_new",
            "expert_capacity": 2,
            "tie_word_embeddings": False,
        },
        positions="index",
        greedy=False,
    ),
    "switch_states": Case("SwitchTransformersModel", SWITCH, positions="index"),
    "switch_encoder": Case("SwitchTransformersEncoderModel", {**SWITCH, "expert_capacity": 3}, padding="right"),
    "t5": Case("T5ForConditionalGeneration", T5, GRADIENTS),
    "t5_1_1": Case(
        "T5ForConditionalGeneration",
        {**GATED, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ("lm_head.weight", "decoder.block.0.layer.2.DenseReluDense.wi_0.weight"),
        apart=HEAD,
    ),
    "t5_scaled": Case(
        "T5ForConditionalGeneration",
        {
            **GATED,
            "feed_forward_proj": "gated-gelu_python",
            "tie_word_embeddings": False,
            "scale_decoder_outputs": True,
        },
        apart=HEAD,
    ),
    "ul2": Case(
        "T5ForConditionalGeneration",
        {**GATED, "feed_forward_proj": "gated-silu", "scale_decoder_outputs": False},
    ),
    "t5_states": Case("T5Model", {**T5, "num_decoder_layers": 4, "feed_forward_proj": "gelu"}),
    "t5_encoder": Case("T5EncoderModel", {**GATED, "feed_forward_proj": "gated-relu"}),
    "t5_rows": Case("T5ForSequenceClassification", {**T5, **EVEN, "eos_token_id": 1}),
    "t5_tokens": Case("T5ForTokenClassification", {**T5, **EVEN}),
    "t5_answers": Case("T5ForQuestionAnswering", T5),
    "mt5": Case(
        "MT5ForConditionalGeneration", {**GATED, "tie_word_embeddings": False}, ("lm_head.weight",), apart=HEAD
    ),
    "mt5_tied": Case("MT5ForConditionalGeneration", {**T5, "feed_forward_proj": "tanh"}),
    "mt5_states": Case("MT5Model", T5),
    "mt5_encoder": Case("MT5EncoderModel", T5),
    "mt5_rows": Case("MT5ForSequenceClassification", {**T5, **EVEN}),
    "mt5_tokens": Case("MT5ForTokenClassification", {**T5, **EVEN}),
    "mt5_answers": Case("MT5ForQuestionAnswering", T5),
    "umt5": Case(
        "UMT5ForConditionalGeneration",
        {**GATED, "tie_word_embeddings": False},
        ("decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", "lm_head.weight"),
        apart=HEAD,
    ),
    "umt5_tied": Case("UMT5ForConditionalGeneration", {**T5, "feed_forward_proj": "relu"}, GRADIENTS),
    "umt5_states": Case("UMT5Model", T5),
    "umt5_encoder": Case("UMT5EncoderModel", T5),
    "umt5_rows": Case("UMT5ForSequenceClassification", {**T5, **EVEN}),
    "umt5_tokens": Case("UMT5ForTokenClassification", {**T5, **EVEN}),
    "umt5_answers": Case("UMT5ForQuestionAnswering", T5),
    "longt5": Case(
        "LongT5ForConditionalGeneration",
        {**LONG, "tie_word_embeddings": False},
        GRADIENTS_LOCAL,
        positions="index",
        apart=HEAD,
    ),
    "longt5_global": Case("LongT5ForConditionalGeneration", GLOBAL, GRADIENTS_GLOBAL, positions="index"),
    "longt5_global_states": Case("LongT5Model", GLOBAL, positions="index"),
    "longt5_local_states": Case("LongT5Model", {**LONG, "feed_forward_proj": "gated-gelu"}),
    "longt5_encoder": Case("LongT5EncoderModel", LONG, positions="index"),
    "longt5_global_encoder": Case("LongT5EncoderModel", GLOBAL, positions="index", padding="right"),
}
