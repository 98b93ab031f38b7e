"""transformers' Granite, GraniteMoe, and GraniteMoeShared, whose experts' matrices stand in one tensor."""

from typing import Any

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, ROUTED, decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs, number

SCORES = "attention_multiplier"


def _read_scores(config: Config) -> Knobs:
    return {"score_scale": number(SCORES, config.get(SCORES, 1.0))}


def _write_scores(knobs: Knobs) -> dict[str, Any]:
    return {SCORES: knobs["score_scale"] or 1 / knobs["head_dim"]}


MULTIPLIERS = (
    Knob("embed_scale", "embedding_multiplier", 1.0),
    Custom((SCORES,), _read_scores, _write_scores),
    Knob("residual_scale", "residual_multiplier", 1.0),
    Knob("logit_divisor", "logits_scaling", 1.0, lambda value: number("logits_scaling", value, above=0)),
    Knob("attention_bias", "attention_bias", False),
)
EXPERTS = (ROUTED, Knob("experts", "num_local_experts", 8), Knob("k", "num_experts_per_tok", 2))
NAMES = decoder_names(
    ATTENTION,
    (
        ("mlp/router", "block_sparse_moe.router.layer"),
        (("mlp/experts/gate", "mlp/experts/up"), "block_sparse_moe.input_linear"),
        ("mlp/experts/down", "block_sparse_moe.output_linear"),
        (("mlp/shared/gate", "mlp/shared/up"), "shared_mlp.input_linear"),
        ("mlp/shared/down", "shared_mlp.output_linear"),
    ),
)
MODEL_TYPES = {
    "granite": HFFormat(
        "granite",
        generation_classes("Granite", sequences=False, tokens=None),
        decoder_fields(*MULTIPLIERS, Knob("mlp_bias", "mlp_bias", False)),
        decoder_names(),
        tokenizer=ANY_TOKENIZER,
    ),
    "granitemoe": HFFormat(
        "granite_moe",
        generation_classes("GraniteMoe", sequences=False, tokens=None),
        decoder_fields(*MULTIPLIERS, *EXPERTS),
        NAMES,
        tokenizer=ANY_TOKENIZER,
    ),
    "granitemoeshared": HFFormat(
        "granite_moe",
        generation_classes("GraniteMoeShared", sequences=False, tokens=None),
        decoder_fields(*MULTIPLIERS, *EXPERTS, Knob("shared_ff", "shared_intermediate_size", 0)),
        NAMES,
        tokenizer=ANY_TOKENIZER,
    ),
}
