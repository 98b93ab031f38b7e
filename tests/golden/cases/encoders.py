"""BERT and its relatives."""

from typing import Any, Literal

from tests.golden.case import Case

BERT = {
    "vocab_size": 83,
    "hidden_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-2,
    "max_position_embeddings": 48,
    "type_vocab_size": 3,
}
TASKS = {"use_task_id": True, "task_type_vocab_size": 5}
ROBERTA = {**BERT, "pad_token_id": 1, "type_vocab_size": 1}
DISTIL = {
    "vocab_size": 83,
    "dim": 28,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": 48,
}
# Five layers in two groups, the first of three.
ALBERT = {**BERT, "num_hidden_layers": 5, "num_hidden_groups": 2, "inner_group_num": 2, "embedding_size": 10}
ELECTRA = {**BERT, "embedding_size": 10}
UNTYPED = {k: v for k, v in BERT.items() if k != "type_vocab_size"}
ROFORMER = {**BERT, "hidden_size": 24, "embedding_size": 10}
MODERN = {
    **{k: v for k, v in UNTYPED.items() if k != "layer_norm_eps"},
    "hidden_size": 24,
    "norm_eps": 1e-2,
    "num_hidden_layers": 5,
    "local_attention": 8,
    "pad_token_id": 0,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    },
}
BIASES = {f"{part}_bias": True for part in ("attention", "mlp", "norm", "classifier")}
DECODER = {"is_decoder": True, "type_vocab_size": 1}  # NextToken tells no types apart

PAIRS = {"pretraining": "ForPreTraining", "pairs": "ForNextSentencePrediction"}
POOLED = ("rows", "pretraining", "pairs")  # theirs pool padding on the left, whose loss is none


def group(
    name: str,
    stem: str,
    config: dict[str, Any],
    positions: Literal["given", "mask"] = "given",
    gradients: tuple[str, ...] = (),
    **more: str,
) -> dict[str, Case]:
    """A model type's base model and classifiers, and `more`: name -> class. `gradients` are the masked-LM model's."""
    suffixes = {
        "base": "Model",
        "masked": "ForMaskedLM",
        "rows": "ForSequenceClassification",
        "tokens": "ForTokenClassification",
        "answers": "ForQuestionAnswering",
        "choice": "ForMultipleChoice",
        **more,
    }
    three = {"num_labels": 3}
    return {
        f"{name}_{what}": Case(
            f"{stem}{suffix}",
            {**config, **(three if what in ("rows", "tokens") else {})},
            gradients if what == "masked" else (),
            positions="index" if (what, positions) == ("choice", "given") else positions,
            padding="right" if what in POOLED else "both",
        )
        for what, suffix in suffixes.items()
    }


def parts(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in ("embeddings.word_embeddings.weight", *names))


SHARED = "albert.encoder.albert_layer_groups.0.albert_layers.1.ffn.weight"
SELF = "encoder.layer.1.attention.self.query.bias"

CASES = {
    **group("bert", "Bert", BERT, gradients=parts("bert", SELF, "embeddings.LayerNorm.weight"), **PAIRS),
    "bert_untied": Case("BertForMaskedLM", {**BERT, "tie_word_embeddings": False, "hidden_act": "gelu_new"}),
    "bert_decoder": Case("BertLMHeadModel", {**BERT, **DECODER}, ("bert.embeddings.word_embeddings.weight",)),
    **group(
        "ernie", "Ernie", {**BERT, **TASKS}, gradients=parts("ernie", "embeddings.task_type_embeddings.weight"), **PAIRS
    ),
    "ernie_untasked": Case("ErnieForMaskedLM", {**BERT, "hidden_act": "relu"}),
    "ernie_decoder": Case("ErnieForCausalLM", {**BERT, **DECODER}),
    **group("megatron_bert", "MegatronBert", BERT, gradients=parts("bert", "encoder.ln.weight"), **PAIRS),
    "megatron_bert_decoder": Case("MegatronBertForCausalLM", {**BERT, **DECODER}),
    **group("roberta", "Roberta", ROBERTA, "mask", parts("roberta", SELF, "embeddings.token_type_embeddings.weight")),
    "roberta_relu": Case("RobertaForMaskedLM", {**ROBERTA, "hidden_act": "relu", "pad_token_id": 2}, positions="mask"),
    "roberta_untied": Case("RobertaForMaskedLM", {**ROBERTA, "tie_word_embeddings": False}, positions="mask"),
    "roberta_decoder": Case("RobertaForCausalLM", {**ROBERTA, **DECODER}, positions="mask"),
    **group("xlm_roberta", "XLMRoberta", ROBERTA, "mask"),
    "xlm_roberta_decoder": Case("XLMRobertaForCausalLM", {**ROBERTA, **DECODER}, positions="mask"),
    **group("xlm_roberta_xl", "XLMRobertaXL", ROBERTA, "mask"),
    "xlm_roberta_xl_decoder": Case("XLMRobertaXLForCausalLM", {**ROBERTA, **DECODER}, positions="mask"),
    **group("camembert", "Camembert", ROBERTA, "mask"),
    "camembert_decoder": Case("CamembertForCausalLM", {**ROBERTA, **DECODER}, positions="mask"),
    **group("roberta_prenorm", "RobertaPreLayerNorm", ROBERTA, "mask"),
    "roberta_prenorm_decoder": Case("RobertaPreLayerNormForCausalLM", {**ROBERTA, **DECODER}, positions="mask"),
    **group("distilbert", "DistilBert", DISTIL, gradients=parts("distilbert", "embeddings.LayerNorm.bias")),
    "distilbert_relu": Case("DistilBertForMaskedLM", {**DISTIL, "activation": "relu", "tie_word_embeddings": False}),
    **group(
        "albert",
        "Albert",
        ALBERT,
        gradients=(SHARED, "albert.encoder.embedding_hidden_mapping_in.weight"),
        pretraining="ForPreTraining",
    ),
    "albert_untied": Case("AlbertForMaskedLM", {**ALBERT, "tie_word_embeddings": False, "hidden_act": "gelu"}),
    **group(
        "electra",
        "Electra",
        ELECTRA,
        gradients=parts("electra", "embeddings_project.weight"),
        pretraining="ForPreTraining",
    ),
    "electra_relu": Case("ElectraForPreTraining", {**ELECTRA, "embedding_size": 28, "hidden_act": "relu"}),
    "electra_relu_masked": Case("ElectraForMaskedLM", {**ELECTRA, "hidden_act": "relu"}),
    "electra_decoder": Case("ElectraForCausalLM", {**ELECTRA, **DECODER}),
    "bert_generation_base": Case("BertGenerationEncoder", UNTYPED),
    "bert_generation": Case(
        "BertGenerationDecoder",
        {**UNTYPED, "is_decoder": True, "hidden_act": "relu"},
        ("bert.embeddings.word_embeddings.weight", "lm_head.bias"),
    ),
    "bert_generation_untied": Case(
        "BertGenerationDecoder", {**UNTYPED, "is_decoder": True, "tie_word_embeddings": False}
    ),
    **group(
        "mpnet",
        "MPNet",
        UNTYPED,
        "mask",
        parts("mpnet", "encoder.relative_attention_bias.weight", "encoder.layer.1.attention.attn.q.bias"),
    ),
    "mpnet_relu": Case(
        "MPNetForMaskedLM", {**UNTYPED, "hidden_act": "relu", "tie_word_embeddings": False}, positions="mask"
    ),
    **group("roformer", "RoFormer", ROFORMER, gradients=parts("roformer", SELF, "embeddings_project.weight")),
    "roformer_choice": Case(
        "RoFormerForMultipleChoice", ROFORMER, padding="left"
    ),  # theirs takes the last, padding too
    "roformer_values": Case(
        "RoFormerForMaskedLM",
        {**ROFORMER, "rotary_value": True, "embedding_size": 24, "hidden_act": "relu", "tie_word_embeddings": False},
        parts("roformer", "encoder.layer.1.attention.self.value.weight"),
        positions="index",
    ),
    "roformer_decoder": Case("RoFormerForCausalLM", {**ROFORMER, **DECODER}),
    **group(
        "modernbert",
        "ModernBert",
        MODERN,
        gradients=(
            "model.embeddings.tok_embeddings.weight",
            "model.layers.1.attn.Wqkv.weight",
            "model.layers.0.mlp.Wi.weight",
            "head.dense.weight",
        ),
    ),
    "modernbert_biases": Case(
        "ModernBertForMaskedLM",
        {
            **MODERN,
            **BIASES,
            "decoder_bias": False,
            "hidden_activation": "gelu_pytorch_tanh",
            "classifier_activation": "silu",
            "tie_word_embeddings": False,
            "layer_types": [
                "sliding_attention",
                "sliding_attention",
                "full_attention",
                "full_attention",
                "sliding_attention",
            ],
        },
        ("head.dense.bias",),
    ),
    "modernbert_rows_mean": Case(
        "ModernBertForSequenceClassification", {**MODERN, **BIASES, "classifier_pooling": "mean", "num_labels": 3}
    ),
    "modernbert_choice_mean": Case("ModernBertForMultipleChoice", {**MODERN, "classifier_pooling": "mean"}),
}
