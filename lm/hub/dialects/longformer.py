"""transformers' Longformer: Roberta's names, and projections of marked tokens."""

from lm.hub.dialects import roberta
from lm.hub.tables.encoders import encoder_fields
from lm.hub.tables.format import Config, HFClass, HFFormat, Knob, Unused
from lm.hub.tables.tensor_names import LAYER, TensorNames, entries

# transformers marks the first token for a classifier, and questions for answers, where a call does not say.
MARKED: dict[str, dict[str, str]] = {
    "MaskedLM": {},
    "SequenceClassification": {"marked": "first"},
    "QuestionAnswering": {"marked": "question"},  # before the other class with such a head, which marks nothing
    "TokenClassification": {},
}


def _classes() -> dict[str, HFClass]:
    known = roberta.classes("Longformer", "longformer.")
    found = {f"LongformerFor{task}": known[f"LongformerFor{task}"]._replace(knobs=m) for task, m in MARKED.items()}
    return found | {"LongformerModel": known["LongformerModel"]}


def _names(config: Config) -> TensorNames:
    own = (("q", "query_global"), ("k", "key_global"), ("v", "value_global"))
    marked = entries(f"{LAYER}attention/anchors/", "longformer.encoder.layer.{layer}.attention.self.", *own)
    return (*roberta.names(config, "longformer."), *marked)


def _read_windows(windows: int | list[int]) -> int | tuple[int, ...]:
    return windows if isinstance(windows, int) else tuple(windows)


def _write_windows(windows: int | tuple[int, ...]) -> int | list[int]:
    return windows if isinstance(windows, int) else list(windows)


WINDOWS = Knob("windows", "attention_window", 512, _read_windows, _write_windows)
MODEL_TYPES = {
    "longformer": HFFormat(
        "longformer",
        _classes(),
        encoder_fields(
            roberta.CONTEXT,
            Knob("vocab", "vocab_size", 30522),
            WINDOWS,
            Knob("separator", "sep_token_id", 2),
            Unused("onnx_export"),
            without=("is_decoder", "add_cross_attention", "position_embedding_type"),
        ),
        _names,
        "longformer.",
        tokenizer="RobertaTokenizer",
    )
}
