"""transformers' ModernBert: all its heads have the same hidden layer."""

from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.decoders import layer_kinds
from lm.hub.tables.format import (
    ACTIVATIONS,
    ANY_TOKENIZER,
    Config,
    Custom,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    activation,
    label_count,
    size_fields,
)
from lm.hub.tables.rope import Rope, RopeByLayer
from lm.hub.tables.tensor_names import SAME, entries, fused_names, ignored_modules, norm_names, tower_names
from lm.model.heads import SequenceClassifier, TokenClassifier
from lm.model.layers import LayerNorm

HEAD = (("dense", "head.dense"), ("norm", "head.norm"))

LAYER = (
    *norm_names("attn_norm", "mlp_norm"),
    *fused_names("attn.Wqkv", "attn.Wo"),
    (("mlp/gate", "mlp/up"), "mlp.Wi"),
    ("mlp/down", "mlp.Wo"),
    # The first layer's MLP norms for itself.
    ("mlp/mlp_norm", "mlp_norm"),
    (("mlp/mlp/gate", "mlp/mlp/up"), "mlp.Wi"),
    ("mlp/mlp/down", "mlp.Wo"),
)
NAMES = (
    *tower_names(
        "body",
        "model.",
        LAYER,
        layers="layers",
        token="embeddings.tok_embeddings",
        embed_norm="embeddings.norm",
        norm="final_norm",
    ),
    *ignored_modules("head.dense", "head.norm", "decoder"),
)


SCORES = entries("head/", "", *HEAD, ("out", "classifier"))
POOLING = {"cls": "first", "mean": "mean"}


def _classifier(kind: type[SequenceClassifier | TokenClassifier], outputs: int | None = None) -> HFClass:
    """One of so many outputs, by default as many as there are labels."""

    def head(config: Config) -> SequenceClassifier | TokenClassifier:
        hidden: Knobs = {
            "activation": ACTIVATIONS[config.get("classifier_activation", "gelu")],
            "norm": LayerNorm(config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False)),
            "dense_bias": config.get("classifier_bias", False),
        }
        if kind is SequenceClassifier:
            hidden["at"] = POOLING[config.get("classifier_pooling", "cls")]
        return kind(outputs or label_count(config), **hidden)

    return HFClass(head=head, names=SCORES)


CLASSES = {
    "ModernBertModel": BASE_MODEL,
    "ModernBertForMaskedLM": HFClass(
        names=(
            *entries("head/", "", *HEAD),
            ("head/lm/w", "decoder.weight", SAME),
            ("head/lm/b", "decoder.bias", SAME),
        )
    ),
    "ModernBertForSequenceClassification": _classifier(SequenceClassifier),
    "ModernBertForMultipleChoice": _classifier(SequenceClassifier, 1),
    "ModernBertForTokenClassification": _classifier(TokenClassifier),
    "ModernBertForQuestionAnswering": _classifier(TokenClassifier, 2),
}


def _write_pooling(knobs: Knobs) -> dict[str, str]:
    return {"classifier_pooling": "mean" if getattr(knobs["head"], "at", None) == "mean" else "cls"}


MODEL_TYPES = {
    "modernbert": HFFormat(
        "modernbert",
        CLASSES,
        (
            *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size", 50368),
            layer_kinds(3, ("global_attn_every_n_layers",), first=True),
            Knob("window", "local_attention", 128),
            RopeByLayer(
                Rope(160000.0, longest=8192, theta_key="global_rope_theta"),
                Rope(10000.0, longest=8192, theta_key="local_rope_theta"),
            ),
            activation("hidden_activation", "gelu"),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
            Knob("norm_bias", "norm_bias", False),
            Knob("eps", "norm_eps", 1e-5),
            activation("classifier_activation", "gelu", knob="head_activation"),
            Knob("head_bias", "classifier_bias", False),
            Knob("lm_bias", "decoder_bias", True),
            Knob("tied", "tie_word_embeddings", True),
            Custom(("classifier_pooling",), Fixed("classifier_pooling", (*POOLING,)).read, _write_pooling),
            Unused("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
            Unused("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile"),
            Unused("sparse_prediction", "sparse_pred_ignore_index"),  # where scores are computed, not what they are
        ),
        NAMES,
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
