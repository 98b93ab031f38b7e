"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): a discriminator, which is a BERT without pooler, tells which tokens of
a text a small masked language model, the generator, has replaced. Both read the same tables of tokens and positions, of
the discriminator's width (or narrower, and projected)."""

import functools
from collections.abc import Mapping
from typing import Any

from lm.core.errors import UserError
from lm.model.heads import SequenceClassifier
from lm.model.transformer import Group
from lm.zoo import dialect
from lm.zoo.bert import BASE, CONTEXT, FIELDS, LARGE, bert, body_names, lm_names, spare
from lm.zoo.dialect import ANSWERS, SUMMARY, Class, Config, Dialect, Knob, Unused, labels, token_labels
from lm.zoo.family import Family, Sizes
from lm.zoo.names import TensorNames, rows

MLM = {"pretraining": ("mlm",), "head_activation": "gelu"}
SIZES: Sizes = {
    "small": {"layers": 12, "d_model": 256, "heads": 4, "embed_width": 128},
    "base": BASE,
    "large": LARGE,
    "small-generator": {"layers": 12, "d_model": 64, "heads": 1, "embed_width": 128, **MLM},
    "base-generator": {"layers": 12, "d_model": 256, "heads": 4, "embed_width": 768, **MLM},
    "large-generator": {"layers": 24, "d_model": 256, "heads": 4, "embed_width": 1024, **MLM},
}
electra = functools.partial(bert, pretraining=("rtd",))
FAMILIES = {"electra": Family(electra, SIZES, "arXiv 2003.10555")}


def electra_pair(*, discriminator: Mapping[str, Any], generator: Mapping[str, Any]) -> Group:
    """Both, from their knobs (`SIZES["base"]` and `SIZES["base-generator"]`, say), over the same tables of tokens and
    positions."""
    parts = (("generator", electra(**generator)), ("discriminator", electra(**discriminator)))
    shared = ("token", "position")
    return Group(parts, tuple((f"generator/body/embed/{x}", f"discriminator/body/embed/{x}") for x in shared))


FIXED = body_names("electra.") + spare(
    *(f"generator_predictions.{part}" for part in ("dense", "LayerNorm")),
    *(f"discriminator_predictions.{part}" for part in ("dense", "dense_prediction")),
)


def names(config: Config) -> TensorNames:
    return (*FIXED, *lm_names(config, "generator_lm_head"))


def _choice(config: Config) -> SequenceClassifier:
    """A row's score as one of several; only what all published configs say of the dense layer is read."""
    usual = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}
    for name, value in usual.items():
        if config.get(name, value) != value:
            raise UserError(f"{name}={config[name]!r} is not supported, only {value!r}")
    return SequenceClassifier(1, activation="gelu")


MASKED = Class(MLM, names=rows("head/", "generator_predictions.", ("dense", "dense"), ("norm", "LayerNorm")))
CLASSES = {
    "ElectraModel": dialect.BASE,
    "ElectraForPreTraining": Class(
        {"pretraining": ("rtd",)},
        names=rows("head/", "discriminator_predictions.", ("dense", "dense"), ("out", "dense_prediction")),
    ),
    "ElectraForMaskedLM": MASKED,
    "ElectraForCausalLM": MASKED,
    "ElectraForSequenceClassification": Class(
        head=lambda config: SequenceClassifier(labels(config), activation="gelu"),
        names=rows("head/", "classifier.", ("dense", "dense"), ("out", "out_proj")),
    ),
    "ElectraForMultipleChoice": Class(
        head=_choice, names=rows("head/", "", ("dense", "sequence_summary.summary"), ("out", "classifier"))
    ),
    "ElectraForTokenClassification": token_labels("classifier"),
    "ElectraForQuestionAnswering": ANSWERS,
}
WIDTH = Knob("embed_width", "embedding_size", 128)
DIALECTS = {
    "electra": Dialect(
        "electra",
        CLASSES,
        (*FIELDS, CONTEXT, WIDTH, Unused("summary_last_dropout", *SUMMARY)),
        names,
        "electra.",
    )
}
