"""transformers' Llama, whose words most decoders since have taken over."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import HFFormat, Knob

MODEL_TYPES = {
    "llama": HFFormat(
        "llama",
        generation_classes("Llama", answers=ANSWERS._replace(prefix="transformer.")),
        decoder_fields(
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
        ),
        decoder_names(),
    )
}
