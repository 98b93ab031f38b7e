"""transformers' Deberta and DebertaV2, and the third version's own code in so far as files say the same by it."""

from collections.abc import Callable

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, BASE_MODEL, token_classifier
from lm.hub.tables.encoders import MLM, MLM_BIAS, encoder_fields, encoder_names, lm_names, transform_names
from lm.hub.tables.format import (
    Config,
    Custom,
    Field,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    activation,
    flag,
    label_count,
)
from lm.hub.tables.tensor_names import (
    BY_HEAD,
    CONVOLUTION,
    LAYER,
    SAME,
    ModuleNames,
    TensorNames,
    attention_names,
    entries,
    fused_names,
    ignored,
    ignored_modules,
)
from lm.model.heads import SequenceClassifier
from lm.zoo.deberta import checked_terms

OWN = "lm_predictions.lm_head."  # the language model's head in DeBERTa's own code; BERT's in the `legacy` class


def _names(attention: ModuleNames, key: str, query: str) -> TensorNames:
    """All but the head: `attention` within a layer, `key` and `query` being the projections of the distances, of which
    either may be the only one."""
    terms = tuple(
        (f"attention/terms/{i}/{x}", f"attention.self.{name}")
        for i in (0, 1)
        for x, name in (("key", key), ("query", query))
    )
    return (
        *encoder_names("deberta.", attention=(*attention, *terms)),
        *entries("body/embed/", "deberta.embeddings.", ("project", "embed_proj")),
        ("body/stack/tables/relative/w", "deberta.encoder.rel_embeddings.weight", SAME),
        ("body/stack/tables/absolute/w", "deberta.embeddings.position_embeddings.weight", SAME),
        *entries("body/stack/tables/relative/", "deberta.encoder.", ("norm", "LayerNorm")),
        *entries(LAYER, "deberta.encoder.conv.", ("branch", "conv", CONVOLUTION), ("branch_norm", "LayerNorm")),
        # What published files carry and models of other classes, or without absolute positions, do not have.
        *ignored("deberta.embeddings.position_embeddings.weight", f"{OWN}bias"),
        *ignored_modules("deberta.encoder.LayerNorm", f"{OWN}dense", f"{OWN}LayerNorm", *MLM[:2]),
        *ignored_modules(*(f"mask_predictions.{part}" for part in ("dense", "LayerNorm", "classifier"))),
    )


SELF = "deberta.encoder.layer.{layer}.attention.self."
NAMES = (
    *_names(fused_names("attention.self.in_proj", "attention.output.dense", BY_HEAD), "pos_proj", "pos_q_proj"),
    (f"{LAYER}attention/q/b", f"{SELF}q_bias", SAME),
    (f"{LAYER}attention/v/b", f"{SELF}v_bias", SAME),
)
PROJECTIONS = attention_names("attention.", "self.query_proj", "self.key_proj", "self.value_proj", "output.dense")
NAMES_2 = (
    *_names(PROJECTIONS, "pos_key_proj", "pos_query_proj"),
    *entries(
        "head/", "mask_predictions.", ("sum_norm", "LayerNorm"), ("scores/dense", "dense"), ("scores/out", "classifier")
    ),
)
LM = transform_names("head/", *MLM[:2]) + transform_names("head/", f"{OWN}dense", f"{OWN}LayerNorm")


def _with_head(names: TensorNames) -> Callable[[Config], TensorNames]:
    return lambda config: (*names, *lm_names(config, MLM[2], MLM_BIAS), ("head/lm/b", f"{OWN}bias", SAME))


POOLER = activation("pooler_hidden_act", "gelu")


def _pooled(config: Config) -> SequenceClassifier:
    return SequenceClassifier(label_count(config), **POOLER.read(config))


def _classes(stem: str) -> dict[str, HFClass]:
    pooled = entries("head/", "", ("dense", "pooler.dense"), ("out", "classifier"))
    return {
        f"{stem}ForMaskedLM": HFClass(names=LM),
        f"{stem}Model": BASE_MODEL,
        f"{stem}ForSequenceClassification": HFClass(head=_pooled, names=pooled),
        f"{stem}ForTokenClassification": token_classifier("classifier"),
        f"{stem}ForQuestionAnswering": ANSWERS,
    }


def _read_pooler(config: Config) -> Knobs:
    width = config.get("pooler_hidden_size")
    if width not in (None, config["hidden_size"]):
        raise UserError(f"pooler_hidden_size={width!r} is not supported, only hidden_size={config['hidden_size']!r}")
    return {}


def _write_pooler(knobs: Knobs) -> dict:
    head = knobs["head"]
    pooled = (
        POOLER.write({"activation": head.activation})
        if isinstance(head, SequenceClassifier) and head.activation
        else {}
    )
    return {"pooler_hidden_size": knobs["d_model"], **pooled}


def _read_terms(terms: str | list[str] | None) -> tuple[str, ...]:
    listed = terms.lower().split("|") if isinstance(terms, str) else terms or []
    return checked_terms(tuple(term.strip() for term in listed))


def _fields(vocab: int, *own: Field) -> tuple[Field, ...]:
    return encoder_fields(
        Knob("vocab", "vocab_size", vocab),
        Knob("types", "type_vocab_size", 0),
        Custom(
            ("embedding_size",),
            lambda config: {"embed_width": config.get("embedding_size")},
            lambda knobs: {"embedding_size": knobs["embed_width"] or knobs["d_model"]},
        ),
        Knob("eps", "layer_norm_eps", 1e-7),
        Knob("absolute", "position_biased_input", True),
        Knob("relative", "relative_attention", False),
        Knob("terms", "pos_att_type", None, _read_terms, list),
        Knob("max_distance", "max_relative_positions", -1, lambda n: n if n > 0 else None, lambda n: n or -1),
        Custom(("pooler_hidden_size", "pooler_hidden_act"), _read_pooler, _write_pooler),
        Custom(
            ("tie_word_embeddings", "legacy"),
            lambda config: {"tied": config.get("tie_word_embeddings", True) or not config.get("legacy", True)},
            lambda knobs: {"tie_word_embeddings": knobs["tied"], "legacy": True},
        ),
        Unused("pooler_dropout", "cls_dropout"),
        *own,
        without=("is_decoder", "add_cross_attention", "position_embedding_type"),
    )


MODEL_TYPES = {
    "deberta": HFFormat(
        "deberta",
        _classes("Deberta"),
        _fields(50265, Fixed("talking_head", (False,))),
        _with_head(NAMES),
        "deberta.",
        tokenizer="DebertaTokenizer",
    ),
    "deberta-v2": HFFormat(
        "deberta_v2",
        _classes("DebertaV2"),
        _fields(
            128100,
            Knob("head_dim", "attention_head_size", None),
            Knob("buckets", "position_buckets", -1, lambda n: max(n, 0), lambda n: n or -1),
            flag("shared", "share_att_key", False),
            Knob(
                "relative_norm",
                "norm_rel_ebd",
                "none",
                lambda x: "layer_norm" in x.lower(),
                lambda x: ["none", "layer_norm"][x],
            ),
            Knob("conv_width", "conv_kernel_size", 0, lambda n: max(n, 0)),
            activation("conv_act", "tanh", knob="conv_activation"),
            Knob("conv_groups", "conv_groups", 1),
        ),
        _with_head(NAMES_2),
        "deberta.",
        tokenizer="DebertaV2Tokenizer",
    ),
}
