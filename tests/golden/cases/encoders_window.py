"""Encoders that do not see all: Longformer and BigBird."""

from tests.golden.case import Case

_CONFIG = {
    "vocab_size": 83,
    "hidden_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-2,
    "max_position_embeddings": 34,
    "type_vocab_size": 2,
    "attention_window": [4, 8, 4],
    "num_labels": 3,
}
_LAYER = "longformer.encoder.layer.1.attention.self."


def _case(kind: str, *gradients: str, anchors: str = "given", **more: object) -> Case:
    return Case(f"Longformer{kind}", _CONFIG | more, gradients, positions="mask", anchors=anchors)


def _bigbird(kind: str, *gradients: str, **more: object) -> Case:
    """Padding in front only: behind, it would stand in the last block of their rows, but not of our texts."""
    sizes = {name: value for name, value in _CONFIG.items() if name != "attention_window"}
    config = sizes | {"block_size": 3, "num_random_blocks": 1} | more
    return Case(f"BigBird{kind}", config, gradients, positions="index", padding="left")


CASES = {
    "longformer": _case("ForMaskedLM", f"{_LAYER}key_global.weight", f"{_LAYER}key.weight", f"{_LAYER}value.bias"),
    "longformer_even": _case("ForMaskedLM", attention_window=6, hidden_act="relu", pad_token_id=2, type_vocab_size=1),
    "longformer_local": _case("ForMaskedLM", anchors="class", tie_word_embeddings=False),
    "longformer_base": _case("Model"),
    "longformer_rows": _case("ForSequenceClassification"),
    "longformer_rows_own": _case("ForSequenceClassification", anchors="class"),
    "longformer_tokens": _case("ForTokenClassification"),
    "longformer_answers": _case("ForQuestionAnswering", num_labels=2),
    "bigbird": _bigbird("ForPreTraining"),
    "bigbird_sizes": _bigbird(
        "ForMaskedLM",
        "bert.encoder.layer.1.attention.self.key.weight",
        block_size=2,
        num_random_blocks=2,
        use_bias=False,
        rescale_embeddings=True,
    ),
    "bigbird_short": _bigbird("ForMaskedLM", block_size=4, hidden_act="gelu"),
    "bigbird_full": _bigbird("ForMaskedLM", attention_type="original_full", tie_word_embeddings=False),
    "bigbird_base": _bigbird("Model"),
    "bigbird_rows": _bigbird("ForSequenceClassification"),
    "bigbird_tokens": _bigbird("ForTokenClassification"),
    "longformer_answers_own": _case("ForQuestionAnswering", anchors="class", num_labels=2, sep_token_id=0),
}
