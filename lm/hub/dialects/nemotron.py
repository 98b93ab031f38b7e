"""transformers' Nemotron."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob, activation
from lm.hub.tables.rope import Rope

MODEL_TYPES = {
    "nemotron": HFFormat(
        "nemotron",
        generation_classes("Nemotron", answers=ANSWERS._replace(prefix="transformer.")),
        decoder_fields(
            Rope(fraction=0.5, longest=4096),
            activation("hidden_act", "relu2"),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
            Knob("eps", "norm_eps", 1e-5),
        ),
        decoder_names(),
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
