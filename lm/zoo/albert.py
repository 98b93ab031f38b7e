"""ALBERT (Lan et al. 2020, arXiv 1909.11942): BERT whose layers share one set of weights (or one for each group of
layers), with an embedding narrower than the layers, trained to fill in masked tokens and to order sentences (SOP)."""

import collections

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.model.stack import LayerGroup, Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import CONTEXT, encoder, layer, lm_names, pooled_classes, spare
from lm.zoo.dialect import Class, Config, Dialect, Field, Fixed, Knob, Unused, act, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import SAME, TensorNames, rows, unused

SIZES = {
    "base": {"layers": 12, "d_model": 768, "heads": 12},
    "large": {"layers": 24, "d_model": 1024, "heads": 16},
    "xlarge": {"layers": 24, "d_model": 2048, "heads": 16},
    "xxlarge": {"layers": 12, "d_model": 4096, "heads": 64},
}


def albert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30000,
    context: int = 512,
    types: int = 2,
    embed_width: int = 128,
    groups: int = 1,
    inner: int = 1,
    activation: str = "gelu_tanh",
    eps: float = 1e-12,
    dropout: float = 0.0,
    pretraining: tuple[str, ...] = ("mlm",),
    tied: bool = True,
) -> LanguageModel:
    """An ALBERT of any shape; `SIZES` has the published ones. Layers belong to `groups`, one after the other, that have
    weights of their own; each consists of `inner` blocks, each of which has its own. `pretraining`: see `bert`."""
    norm = LayerNorm(eps)
    block = layer(d_model, heads, d_ff, activation, norm, dropout=dropout)
    sizes = [n for _, n in sorted(collections.Counter(_groups(layers, groups)).items())]
    if len(sizes) != groups:
        raise UserError(f"model.groups={groups} of {layers} layers leaves one without any: choose fewer groups")
    return encoder(
        Stack(tuple(LayerGroup((block,) * inner, n, tied=True) for n in sizes)),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context, init=Normal(0.02)),
        types=types,
        embed_width=embed_width,
        embed_norm=norm,
        norm=norm,
        activation=activation,
        dropout=dropout,
        pretraining=pretraining,
        tied=tied,
    )


def _groups(layers: int, groups: int) -> list[int]:
    """Each layer's group; this very division is what others do, rounding errors included."""
    return [int(i / (layers / groups)) for i in range(layers)] if groups > 0 else []


FAMILIES = {"albert": Family(albert, SIZES, "arXiv 1909.11942")}

MLM = ("predictions.dense", "predictions.LayerNorm")
EMBED: TensorNames = (
    ("body/embed/token", "albert.embeddings.word_embeddings.weight", SAME),
    ("body/embed/position/w", "albert.embeddings.position_embeddings.weight", SAME),
    ("body/embed/types/w", "albert.embeddings.token_type_embeddings.weight", SAME),
    *rows(
        "body/embed/", "albert.", ("norm", "embeddings.LayerNorm"), ("project", "encoder.embedding_hidden_mapping_in")
    ),
    *unused("albert.embeddings.position_ids", "albert.embeddings.token_type_ids"),
    *spare("albert.pooler", "sop_classifier.classifier", *MLM),
)


def names(config: Config) -> TensorNames:
    """A layer's tensors are there once for each group and inner block."""
    found = (*EMBED, *lm_names(config, "predictions.decoder", "predictions.bias"))
    for group in range(config.get("num_hidden_groups", 1)):
        for inner in range(config.get("inner_group_num", 1)):
            found += rows(
                f"body/stack/{group}/{inner}/",
                f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
                ("attention/q", "attention.query"),
                ("attention/k", "attention.key"),
                ("attention/v", "attention.value"),
                ("attention/o", "attention.dense"),
                ("attention_norm", "attention.LayerNorm"),
                ("mlp/up", "ffn"),
                ("mlp/down", "ffn_output"),
                ("mlp_norm", "full_layer_layer_norm"),
            )
    return found


CLASSES = pooled_classes("Albert", "albert.pooler") | {
    "AlbertForPreTraining": Class(
        {"pretraining": ("mlm", "sop")},
        names=(
            *rows("head/mlm/", "", ("dense", MLM[0]), ("norm", MLM[1])),
            *rows("head/sop/", "", ("dense", "albert.pooler"), ("out", "sop_classifier.classifier")),
        ),
    ),
    "AlbertForMaskedLM": Class({"pretraining": ("mlm",)}, names=rows("head/", "", ("dense", MLM[0]), ("norm", MLM[1]))),
}
FIELDS: tuple[Field, ...] = (
    *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    Knob("vocab", "vocab_size"),
    CONTEXT,
    Knob("types", "type_vocab_size", 2),
    Knob("embed_width", "embedding_size", 128),
    Knob("groups", "num_hidden_groups", 1),
    Knob("inner", "inner_group_num", 1),
    act("activation", "hidden_act", "gelu_new"),
    Knob("eps", "layer_norm_eps", 1e-12),
    Knob("tied", "tie_word_embeddings", True),
    Fixed("position_embedding_type", ("absolute",)),
    Unused("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
)
DIALECTS = {"albert": Dialect("albert", CLASSES, FIELDS, names, "albert.")}
