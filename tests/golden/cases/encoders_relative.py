"""Encoders whose attention looks at distances: DeBERTa in its versions."""

from tests.golden.case import Case

_1 = {
    "vocab_size": 83,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-2,
    "max_position_embeddings": 32,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "num_labels": 3,
}
_2 = {
    **_1,
    "position_buckets": 6,
    "max_relative_positions": 15,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
}
_RELATIVE = "deberta.encoder.rel_embeddings.weight"
_LAYER = "deberta.encoder.layer.1.attention.self."

CASES = {
    "deberta": Case("DebertaForMaskedLM", _1, (_RELATIVE, f"{_LAYER}pos_q_proj.bias", f"{_LAYER}q_bias")),
    "deberta_short": Case(
        "DebertaForMaskedLM",
        {**_1, "max_relative_positions": 5, "position_biased_input": True, "type_vocab_size": 3, "hidden_act": "relu"},
    ),
    "deberta_c2p": Case("DebertaForMaskedLM", {**_1, "pos_att_type": "c2p", "legacy": False}),
    "deberta_p2c": Case("DebertaForMaskedLM", {**_1, "pos_att_type": ["p2c"], "embedding_size": 10}),
    "deberta_plain": Case(
        "DebertaForMaskedLM", {**_1, "relative_attention": False, "position_biased_input": True, "num_hidden_layers": 1}
    ),
    "deberta_no_terms": Case("DebertaForMaskedLM", {**_1, "pos_att_type": None}),
    "deberta_base": Case("DebertaModel", _1),
    "deberta_rows": Case("DebertaForSequenceClassification", {**_1, "pooler_hidden_act": "tanh"}),
    "deberta_tokens": Case("DebertaForTokenClassification", _1),
    "deberta_answers": Case("DebertaForQuestionAnswering", {**_1, "num_labels": 2}),
    "deberta_v2": Case(
        "DebertaV2ForMaskedLM", _2, (_RELATIVE, f"{_LAYER}query_proj.weight", "deberta.encoder.conv.conv.weight")
    ),
    "deberta_v2_apart": Case(
        "DebertaV2ForMaskedLM",
        {
            **_2,
            "pos_att_type": "p2c|c2p",
            "share_att_key": False,
            "norm_rel_ebd": "none",
            "conv_kernel_size": 5,
            "conv_act": "tanh",
            "conv_groups": 3,
            "position_buckets": 7,
            "max_relative_positions": -1,
            "type_vocab_size": 2,
            "position_biased_input": True,
            "legacy": False,
        },
    ),
    "deberta_v2_clipped": Case(
        "DebertaV2ForMaskedLM",
        {**_2, "position_buckets": -1, "max_relative_positions": 9, "conv_kernel_size": 0, "embedding_size": 10},
    ),
    "deberta_v2_p2c": Case("DebertaV2ForMaskedLM", {**_2, "pos_att_type": ["p2c"], "num_hidden_layers": 1}),
    "deberta_v2_plain": Case(
        "DebertaV2ForMaskedLM", {**_2, "relative_attention": False, "pos_att_type": ["c2p"], "attention_head_size": 6}
    ),
    "deberta_v2_untied": Case("DebertaV2ForMaskedLM", {**_2, "tie_word_embeddings": False}),
    "deberta_v2_base": Case("DebertaV2Model", _2),
    "deberta_v2_rows": Case("DebertaV2ForSequenceClassification", _2),
    "deberta_v2_tokens": Case("DebertaV2ForTokenClassification", _2),
    "deberta_v2_answers": Case("DebertaV2ForQuestionAnswering", {**_2, "num_labels": 2}),
}
