"""transformers' Roberta, XLMRoberta, Camembert, RobertaPreLayerNorm and XLMRobertaXL."""

from lm.core.errors import UserError
from lm.hub.tables.encoders import (
    NORMS,
    classifier,
    encoder_fields,
    encoder_names,
    lm_names,
    pooled_classes,
    transform_names,
)
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, Field, HFClass, HFFormat, Knob, Knobs
from lm.hub.tables.tensor_names import ModuleNames, TensorNames, ignored_modules, norm_names


def classes(stem: str, prefix: str) -> dict[str, HFClass]:
    masked = HFClass({"pretraining": ("mlm",)}, names=transform_names("head/", "lm_head.dense", "lm_head.layer_norm"))
    return pooled_classes(stem, f"{prefix}pooler.dense") | {
        f"{stem}ForMaskedLM": masked,
        f"{stem}ForCausalLM": masked,
        f"{stem}ForSequenceClassification": classifier("tanh"),
    }


def head_names(config: Config, prefix: str) -> TensorNames:
    """The masked-LM head's table and bias, and what files may carry beside the class that is read."""
    beside = ignored_modules(f"{prefix}pooler.dense", "lm_head.dense", "lm_head.layer_norm")
    return (*beside, *lm_names(config, "lm_head.decoder", "lm_head.bias"))


def names(config: Config, prefix: str, norms: ModuleNames = NORMS, norm: str | None = None) -> TensorNames:
    return (*encoder_names(prefix, norms, norm=norm), *head_names(config, prefix))


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


def _format(
    family: str,
    stem: str,
    prefix: str,
    *fields: Field,
    norms: ModuleNames = NORMS,
    norm: str | None = None,
    tokenizer: str,
    tokenizer_before: str | None = None,
) -> HFFormat:
    return HFFormat(
        family,
        classes(stem, prefix),
        encoder_fields(CONTEXT, *fields),
        lambda config: names(config, prefix, norms, norm),
        prefix,
        tokenizer=tokenizer,
        tokenizer_before=tokenizer_before,
    )


MODEL_TYPES = {
    "roberta": _format("roberta", "Roberta", "roberta.", tokenizer="RobertaTokenizer"),
    "xlm-roberta": _format("xlm_roberta", "XLMRoberta", "roberta.", tokenizer="XLMRobertaTokenizer"),
    "camembert": _format("camembert", "Camembert", "roberta.", tokenizer="CamembertTokenizer"),
    "roberta-prelayernorm": _format(
        "roberta_prenorm",
        "RobertaPreLayerNorm",
        "roberta_prelayernorm.",
        norms=norm_names("attention.LayerNorm", "intermediate.LayerNorm"),
        norm="LayerNorm",
        tokenizer="RobertaTokenizer",
    ),
    "xlm-roberta-xl": _format(
        "xlm_roberta_xl",
        "XLMRobertaXL",
        "roberta.",
        Knob("types", "type_vocab_size", 1),
        Knob("eps", "layer_norm_eps", 1e-5),
        norms=norm_names("attention.self_attn_layer_norm", "LayerNorm"),
        norm="encoder.LayerNorm",
        tokenizer=ANY_TOKENIZER,
        tokenizer_before="XLMRobertaTokenizer",
    ),
}
