"""Encoder-decoders of towers that stand alone elsewhere: LED, two BERTs, T5Gemma."""

from typing import Any

from tests.golden.case import Case
from tests.golden.cases.encdec_bart import SHAPE
from tests.golden.cases.encoders import BERT, ROBERTA, UNTYPED

LED = {
    **{name: value for name, value in SHAPE.items() if name != "max_position_embeddings"},
    "max_encoder_position_embeddings": 34,
    "max_decoder_position_embeddings": 40,
    "attention_window": [4, 8, 4],
}
_LED = "led.encoder.layers.1.self_attn.longformer_self_attn."

# The reader is wider, deeper and of another vocabulary than the writer.
READER = {"model_type": "bert", **BERT}
WRITER = {
    **READER,
    "vocab_size": 97,
    "num_hidden_layers": 2,
    "intermediate_size": 36,
    "type_vocab_size": 2,
    "is_decoder": True,
    "add_cross_attention": True,
}
STARTS = {"decoder_start_token_id": 2, "pad_token_id": 0}
_CROSS = "decoder.bert.encoder.layer.1.crossattention.self.value.weight"


def _two(encoder: dict[str, Any], decoder: dict[str, Any], gradients: tuple[str, ...] = (), **more: Any) -> Case:
    config = {"encoder": encoder, "decoder": decoder, **STARTS, **more}
    return Case("EncoderDecoderModel", config, gradients, positions="index")


GEMMA = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "rms_norm_eps": 1e-2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 5.0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
}
SMALLER = {
    **GEMMA,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "num_key_value_heads": 4,
    "head_dim": 10,
    "query_pre_attn_scalar": 12,
    "sliding_window": 7,
    "layer_types": ["full_attention", "sliding_attention"],
}
PAIR = {"encoder": GEMMA, "decoder": SMALLER, "decoder_start_token_id": 2}
EVEN = {"encoder": GEMMA, "decoder": GEMMA, "vocab_size": 97, "decoder_start_token_id": 2}
UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}
_GEMMA = (
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "model.decoder.layers.1.cross_attn.k_proj.weight",
    "model.decoder.layers.0.pre_cross_attn_layernorm.weight",
)

CASES: dict[str, Case] = {
    "led": Case(
        "LEDForConditionalGeneration",
        LED,
        ("led.shared.weight", f"{_LED}key_global.weight", "led.decoder.layers.0.encoder_attn.v_proj.weight"),
        positions="index",
    ),
    "led_untied": Case(
        "LEDForConditionalGeneration",
        {**LED, "attention_window": 6, "activation_function": "relu", "tie_word_embeddings": False},
        positions="index",
    ),
    "led_base": Case("LEDModel", LED, positions="index"),
    "led_answers": Case("LEDForQuestionAnswering", LED, positions="index"),
    "bert2bert": _two(READER, WRITER, ("encoder.embeddings.word_embeddings.weight", _CROSS)),
    "bert2bert_widths": _two(
        READER | {"hidden_act": "gelu_new"},
        WRITER | {"hidden_size": 24, "hidden_act": "relu", "tie_word_embeddings": False},
        ("enc_to_dec_proj.weight", _CROSS),
    ),
    "bert2bert_roberta": _two(
        ROBERTA | {"model_type": "roberta"},
        {**WRITER, **ROBERTA, "model_type": "roberta", "num_hidden_layers": 2},
        pad_token_id=1,
    ),
    "bert2bert_mixed": _two(ROBERTA | {"model_type": "roberta"}, WRITER),
    "bert2bert_generation": _two(
        {**UNTYPED, "model_type": "bert-generation"},
        {
            **UNTYPED,
            "vocab_size": 97,
            "num_hidden_layers": 2,
            "model_type": "bert-generation",
            "is_decoder": True,
            "add_cross_attention": True,
        },
        ("decoder.lm_head.bias", _CROSS),
    ),
    "t5gemma": Case("T5GemmaForConditionalGeneration", PAIR, _GEMMA),
    "t5gemma_uncapped": Case(
        "T5GemmaForConditionalGeneration",
        {
            "encoder": GEMMA | UNCAPPED,
            "decoder": SMALLER | UNCAPPED,
            "tie_word_embeddings": False,
            "decoder_start_token_id": 2,
        },
        ("lm_head.out_proj.weight",),
    ),
    "t5gemma_base": Case("T5GemmaModel", PAIR),
    "t5gemma_encoder": Case("T5GemmaEncoderModel", {**EVEN, "is_encoder_decoder": False}),
    "t5gemma_tokens": Case("T5GemmaForTokenClassification", {**EVEN, "is_encoder_decoder": False, "num_labels": 3}),
    "t5gemma_rows": Case("T5GemmaForSequenceClassification", {**EVEN, "is_encoder_decoder": False, "num_labels": 3}),
    "t5gemma_rows_pair": Case("T5GemmaForSequenceClassification", {**PAIR, "num_labels": 3}),
    "t5gemma_tokens_pair": Case("T5GemmaForTokenClassification", {**PAIR, "num_labels": 3}),
}
