"""transformers' Mistral."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, Fixed, HFFormat, Knob
from lm.hub.tables.rope import Rope

MODEL_TYPES = {
    "mistral": HFFormat(
        "mistral",
        generation_classes("Mistral", answers=ANSWERS),
        decoder_fields(
            Knob("kv_heads", "num_key_value_heads", 8),
            Rope(longest=131072),
            Knob("window", "sliding_window", 4096, lambda w: w or 0, lambda w: w or None),
            Fixed("layer_types", (None,)),
        ),
        decoder_names(),
        tokenizer=ANY_TOKENIZER,
    )
}
