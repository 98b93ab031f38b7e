"""transformers' Blenderbot and BlenderbotSmall."""

from lm.hub.tables.encoder_decoders import (
    encoder_decoder_classes,
    encoder_decoder_fields,
    encoder_decoder_names,
    learned_positions,
)
from lm.hub.tables.format import HFFormat, Unused

MODEL_TYPES = {
    "blenderbot": HFFormat(
        "blenderbot",
        encoder_decoder_classes("Blenderbot"),
        encoder_decoder_fields(learned_positions(0), Unused("encoder_no_repeat_ngram_size"), norm_first=True),
        encoder_decoder_names,
        tokenizer="BlenderbotTokenizer",
    ),
    "blenderbot-small": HFFormat(
        "blenderbot_small",
        encoder_decoder_classes("BlenderbotSmall"),
        encoder_decoder_fields(learned_positions(0), embed_norm=True),
        encoder_decoder_names,
        tokenizer="BlenderbotSmallTokenizer",
    ),
}
