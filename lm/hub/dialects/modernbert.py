"""transformers' ModernBert: all its heads have the same hidden layer."""

import functools

from lm.core.errors import UserError
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.format import (
    ACTIVATIONS,
    Config,
    Custom,
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
from lm.zoo.parts import GLOBAL, LOCAL

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


def _dense(config: Config) -> Knobs:
    """The hidden layer that all its heads have."""
    name = config.get("classifier_activation", "gelu")
    if name not in ACTIVATIONS:
        raise UserError(f"classifier_activation={name!r} is an unknown activation")
    norm = LayerNorm(config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
    return {"activation": ACTIVATIONS[name], "norm": norm, "dense_bias": config.get("classifier_bias", False)}


def _pooled(config: Config, outputs: int | None = None) -> SequenceClassifier:
    return SequenceClassifier(
        outputs or label_count(config), at=POOLING[config.get("classifier_pooling", "cls")], **_dense(config)
    )


def _tokens(config: Config, outputs: int | None = None) -> TokenClassifier:
    return TokenClassifier(outputs or label_count(config), **_dense(config))


POOLING = {"cls": "first", "mean": "mean"}

SCORES = entries("head/", "", *HEAD, ("out", "classifier"))

CLASSES = {
    "ModernBertModel": BASE_MODEL,
    "ModernBertForMaskedLM": HFClass(
        names=(
            *entries("head/", "", *HEAD),
            ("head/lm/w", "decoder.weight", SAME),
            ("head/lm/b", "decoder.bias", SAME),
        )
    ),
    "ModernBertForSequenceClassification": HFClass(head=_pooled, names=SCORES),
    "ModernBertForMultipleChoice": HFClass(head=functools.partial(_pooled, outputs=1), names=SCORES),
    "ModernBertForTokenClassification": HFClass(head=_tokens, names=SCORES),
    "ModernBertForQuestionAnswering": HFClass(head=functools.partial(_tokens, outputs=2), names=SCORES),
}


def _read_kinds(config: Config) -> Knobs:
    period, kinds = config.get("global_attn_every_n_layers", 3), config.get("layer_types")
    if kinds is None:
        kinds = [LOCAL if i % period else GLOBAL for i in range(config["num_hidden_layers"])]
    return {"layer_types": tuple(kinds)}


def _write_kinds(knobs: Knobs) -> dict:
    return {"layer_types": list(knobs["layer_types"] or (LOCAL if i % 3 else GLOBAL for i in range(knobs["layers"])))}


def _read_pooling(config: Config) -> Knobs:
    """Of the class's head, which reads it itself."""
    if (told := config.get("classifier_pooling", "cls")) not in [*POOLING]:
        raise UserError(f"classifier_pooling={told!r} is not supported, only {' or '.join(map(repr, POOLING))}")
    return {}


def _write_pooling(knobs: Knobs) -> dict:
    return {"classifier_pooling": "mean" if getattr(knobs["head"], "at", None) == "mean" else "cls"}


MODEL_TYPES = {
    "modernbert": HFFormat(
        "modernbert",
        CLASSES,
        (
            *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size", 50368),
            Custom(("layer_types", "global_attn_every_n_layers"), _read_kinds, _write_kinds),
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
            Custom(("classifier_pooling",), _read_pooling, _write_pooling),
            Unused("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
            Unused("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile"),
            Unused("sparse_prediction", "sparse_pred_ignore_index"),  # where scores are computed, not what they are
        ),
        NAMES,
    )
}
