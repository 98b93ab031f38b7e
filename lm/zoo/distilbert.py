"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT with half its layers, without types and pooler, trained to give
what BERT gives."""

import functools

from lm.model.heads import NoHead, SequenceClassifier
from lm.zoo.bert import bert, lm_names, spare
from lm.zoo.dialect import ANSWERS, Class, Config, Dialect, Knob, Unused, act, labels, layers_heads, token_labels
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, TensorNames, rows, unused

_BASE = {"layers": 6, "d_model": 768, "heads": 12}
SIZES = {
    "base": _BASE,
    "base-cased": {**_BASE, "vocab": 28996},
    "base-multilingual-cased": {**_BASE, "vocab": 119547},
}
FAMILIES = {"distilbert": Family(functools.partial(bert, types=0), SIZES, "arXiv 1910.01108")}

BODY: TensorNames = (
    ("body/embed/token", "distilbert.embeddings.word_embeddings.weight", SAME),
    ("body/embed/position/w", "distilbert.embeddings.position_embeddings.weight", SAME),
    *rows("body/embed/", "distilbert.embeddings.", ("norm", "LayerNorm")),
    *rows(
        LAYER,
        "distilbert.transformer.layer.{layer}.",
        ("attention/q", "attention.q_lin"),
        ("attention/k", "attention.k_lin"),
        ("attention/v", "attention.v_lin"),
        ("attention/o", "attention.out_lin"),
        ("attention_norm", "sa_layer_norm"),
        ("mlp/up", "ffn.lin1"),
        ("mlp/down", "ffn.lin2"),
        ("mlp_norm", "output_layer_norm"),
    ),
    *unused("distilbert.embeddings.position_ids"),
    *spare("vocab_transform", "vocab_layer_norm"),
)
POOLED = rows("head/", "", ("dense", "pre_classifier"), ("out", "classifier"))
CLASSES = {
    "DistilBertModel": Class(head=lambda config: NoHead()),
    "DistilBertForMaskedLM": Class(
        {"pretraining": ("mlm",)},
        names=rows("head/", "", ("dense", "vocab_transform"), ("norm", "vocab_layer_norm")),
    ),
    "DistilBertForSequenceClassification": Class(
        head=lambda config: SequenceClassifier(labels(config), activation="relu"), names=POOLED
    ),
    "DistilBertForMultipleChoice": Class(head=lambda config: SequenceClassifier(1, activation="relu"), names=POOLED),
    "DistilBertForTokenClassification": token_labels("classifier"),
    "DistilBertForQuestionAnswering": ANSWERS,
}


def names(config: Config) -> TensorNames:
    return (*BODY, *lm_names(config, "vocab_projector"))


DIALECTS = {
    "distilbert": Dialect(
        "distilbert",
        CLASSES,
        (
            *layers_heads("dim", "n_layers", "n_heads", "hidden_dim"),
            Knob("vocab", "vocab_size"),
            Knob("context", "max_position_embeddings", 512),
            act("activation", "activation", "gelu"),
            Knob("tied", "tie_word_embeddings", True),
            Unused("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
            Unused("sinusoidal_pos_embds"),  # how their table of positions begins; files hold it
        ),
        names,
        "distilbert.",
    )
}
