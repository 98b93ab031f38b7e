"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa (Conneau et al. 2020, 1911.02116), CamemBERT (Martin et al.
2020, 1911.03894), and two with their norms first: fairseq's (Ott et al. 2019, 1904.01038; used by Wettig et al. 2023,
2202.08005) and the larger XLM-RoBERTas (Goyal et al. 2021, 2105.00572), whose embedding is not normed.

BERT trained longer, without pairs of texts: one type of token, positions that begin behind the padding's row, and a
masked-LM head whose activation is always GELU."""

import functools
from collections.abc import Callable

from lm.core.errors import UserError
from lm.model.heads import SequenceClassifier
from lm.zoo.bert import BASE, FIELDS, LARGE, bert, body_names, lm_names, pooled_classes, spare
from lm.zoo.dialect import Class, Config, Custom, Dialect, Field, Knob, Knobs, labels
from lm.zoo.family import Family, Sizes
from lm.zoo.names import TensorNames, rows

SIZES: Sizes = {"base": BASE, "large": LARGE}
XL = {
    "xl": {"layers": 36, "d_model": 2560, "heads": 32},
    "xxl": {"layers": 48, "d_model": 4096, "heads": 32},
}
roberta = functools.partial(bert, vocab=50265, offset=2, types=1, head_activation="gelu", eps=1e-5)
prenorm = functools.partial(roberta, norm_first=True)
FAMILIES = {
    "roberta": Family(roberta, SIZES, "arXiv 1907.11692"),
    "roberta_prenorm": Family(prenorm, {"base": BASE}, "arXiv 1904.01038"),
    "xlm_roberta": Family(functools.partial(roberta, vocab=250002), SIZES, "arXiv 1911.02116"),
    "xlm_roberta_xl": Family(functools.partial(prenorm, vocab=250880, embed_norm=False), XL, "arXiv 2105.00572"),
    "camembert": Family(functools.partial(roberta, vocab=32005), SIZES, "arXiv 1911.03894"),
}


def classes(stem: str, prefix: str) -> dict[str, Class]:
    masked = Class(
        {"pretraining": ("mlm",)}, names=rows("head/", "lm_head.", ("dense", "dense"), ("norm", "layer_norm"))
    )
    rows_of = Class(
        head=lambda config: SequenceClassifier(labels(config), activation="tanh"),
        names=rows("head/", "classifier.", ("dense", "dense"), ("out", "out_proj")),
    )
    return pooled_classes(stem, f"{prefix}pooler.dense") | {
        f"{stem}ForMaskedLM": masked,
        f"{stem}ForCausalLM": masked,
        f"{stem}ForSequenceClassification": rows_of,
    }


def head_names(config: Config, prefix: str) -> TensorNames:
    """The masked-LM head's table and bias, and what files may carry beside the class that is read."""
    spares = spare(f"{prefix}pooler.dense", "lm_head.dense", "lm_head.layer_norm")
    return (*spares, *lm_names(config, "lm_head.decoder", "lm_head.bias"))


def names(prefix: str, *norms: str) -> Callable[[Config], TensorNames]:
    fixed = body_names(prefix, *norms)
    return lambda config: (*fixed, *head_names(config, prefix))


def _read(config: Config) -> Knobs:
    """Their table's rows include those up to the padding's."""
    padding = config.get("pad_token_id", 1)
    if not isinstance(padding, int):
        raise UserError(f"pad_token_id={padding!r} is not supported: positions begin behind it")
    return {"offset": padding + 1, "context": config.get("max_position_embeddings", 512) - padding - 1}


def _write(knobs: Knobs) -> dict:
    offset = knobs["offset"]
    return {"pad_token_id": offset - 1, "max_position_embeddings": knobs["context"] + offset}


CONTEXT = Custom(("pad_token_id", "max_position_embeddings"), _read, _write)
PRE = ("attention.LayerNorm", "intermediate.LayerNorm", "LayerNorm")
XL_NORMS = ("attention.self_attn_layer_norm", "LayerNorm", "encoder.LayerNorm")
DEFAULTS = (Knob("types", "type_vocab_size", 1), Knob("eps", "layer_norm_eps", 1e-5))  # of the XL model type
XL_FIELDS = (*(f for f in FIELDS if f.names not in {d.names for d in DEFAULTS}), *DEFAULTS)


def _dialect(family: str, stem: str, prefix: str, *norms: str, fields: tuple[Field, ...] = FIELDS) -> Dialect:
    return Dialect(family, classes(stem, prefix), (*fields, CONTEXT), names(prefix, *norms), prefix)


DIALECTS = {
    "roberta": _dialect("roberta", "Roberta", "roberta."),
    "xlm-roberta": _dialect("xlm_roberta", "XLMRoberta", "roberta."),
    "camembert": _dialect("camembert", "Camembert", "roberta."),
    "roberta-prelayernorm": _dialect("roberta_prenorm", "RobertaPreLayerNorm", "roberta_prelayernorm.", *PRE),
    "xlm-roberta-xl": _dialect("xlm_roberta_xl", "XLMRobertaXL", "roberta.", *XL_NORMS, fields=XL_FIELDS),
}
