"""transformers' Granite."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, Custom, HFFormat, Knob, number

SCORES = "attention_multiplier"
MODEL_TYPES = {
    "granite": HFFormat(
        "granite",
        generation_classes("Granite", sequences=False, tokens=None),
        decoder_fields(
            Knob("embed_scale", "embedding_multiplier", 1.0),
            Custom(
                (SCORES,),
                lambda config: {"score_scale": number(SCORES, config.get(SCORES, 1.0))},
                lambda knobs: {SCORES: knobs["score_scale"] or 1 / knobs["head_dim"]},
            ),
            Knob("residual_scale", "residual_multiplier", 1.0),
            Knob("logit_divisor", "logits_scaling", 1.0, lambda value: number("logits_scaling", value, above=0)),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
        ),
        decoder_names(),
        tokenizer=ANY_TOKENIZER,
    )
}
