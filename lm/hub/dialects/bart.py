"""transformers' Bart, MBart and PLBart."""

from lm.hub.tables.encoder_decoders import (
    encoder_decoder_classes,
    encoder_decoder_fields,
    encoder_decoder_names,
    learned_positions,
)
from lm.hub.tables.format import HFFormat
from lm.zoo.bart import OFFSET

POSITIONS = learned_positions(OFFSET)
MODEL_TYPES = {
    "bart": HFFormat(
        "bart",
        encoder_decoder_classes("Bart", labels=3, answers=True),
        encoder_decoder_fields(POSITIONS, embed_norm=True),
        encoder_decoder_names,
        tokenizer="RobertaTokenizer",
    ),
    "mbart": HFFormat(
        "mbart",
        encoder_decoder_classes("MBart", labels=2, answers=True),
        encoder_decoder_fields(POSITIONS, norm_first=True, embed_norm=True),
        encoder_decoder_names,
        tokenizer="MBartTokenizer",
    ),
    "plbart": HFFormat(
        "plbart",
        encoder_decoder_classes("PLBart", labels=2),
        encoder_decoder_fields(POSITIONS, scaled=True, embed_norm=True),
        encoder_decoder_names,
        tokenizer="PLBartTokenizer",
    ),
}
