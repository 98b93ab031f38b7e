"""transformers' Albert, whose layers' tensors are there once for each group and inner block."""

from lm.hub.tables.encoders import encoder_fields, encoder_names, lm_names, pooled_classes, transform_names
from lm.hub.tables.format import Config, HFClass, HFFormat, Knob, Unused, activation
from lm.hub.tables.tensor_names import (
    TensorNames,
    attention_names,
    entries,
    ignored_modules,
    mlp_names,
    norm_names,
)

MLM = ("predictions.dense", "predictions.LayerNorm")
LAYER = (
    *attention_names("attention.", "query", "key", "value", "dense"),
    *mlp_names("ffn", "ffn_output"),
    *norm_names("attention.LayerNorm", "full_layer_layer_norm"),
)


def _names(config: Config) -> TensorNames:
    layers = [
        (group, inner)
        for group in range(config.get("num_hidden_groups", 1))
        for inner in range(config.get("inner_group_num", 1))
    ]
    return (
        *encoder_names("albert.", (), attention=(), mlp=()),
        *entries("body/embed/", "albert.", ("project", "encoder.embedding_hidden_mapping_in")),
        *ignored_modules("albert.pooler", "sop_classifier.classifier", *MLM),
        *lm_names(config, "predictions.decoder", "predictions.bias"),
        *(
            entry
            for group, inner in layers
            for entry in entries(
                f"body/stack/{group}/{inner}/",
                f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
                *LAYER,
            )
        ),
    )


CLASSES = pooled_classes("Albert", "albert.pooler") | {
    "AlbertForPreTraining": HFClass(
        {"pretraining": ("mlm", "sop")},
        names=(
            *transform_names("head/mlm/", *MLM),
            *entries("head/sop/", "", ("dense", "albert.pooler"), ("out", "sop_classifier.classifier")),
        ),
    ),
    "AlbertForMaskedLM": HFClass({"pretraining": ("mlm",)}, names=transform_names("head/", *MLM)),
}
MODEL_TYPES = {
    "albert": HFFormat(
        "albert",
        CLASSES,
        encoder_fields(
            Knob("embed_width", "embedding_size", 128),
            Knob("groups", "num_hidden_groups", 1),
            Knob("inner", "inner_group_num", 1),
            activation("hidden_act", "gelu_new"),
            Unused("classifier_dropout_prob"),
            without=("is_decoder", "add_cross_attention"),
        ),
        _names,
        "albert.",
        tokenizer="AlbertTokenizer",
    )
}
