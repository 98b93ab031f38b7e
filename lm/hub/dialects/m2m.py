"""transformers' M2M100, whose first position stands behind the padding id."""

from lm.hub.tables.encoder_decoders import encoder_decoder_classes, encoder_decoder_fields, encoder_decoder_names
from lm.hub.tables.format import HFFormat, Knob, Unused, activation
from lm.model.positions import Sinusoidal

POSITION = Knob(
    "position",
    "pad_token_id",
    1,
    lambda padding: Sinusoidal(layout="fairseq", offset=padding + 1),
    lambda position: position.offset - 1,
)
MODEL_TYPES = {
    "m2m_100": HFFormat(
        "m2m",
        encoder_decoder_classes("M2M100", alone=False),
        encoder_decoder_fields(
            POSITION,
            activation("activation_function", "relu"),
            Unused("max_position_embeddings"),
            scaled=True,
            norm_first=True,
        ),
        encoder_decoder_names,
        tokenizer="M2M100Tokenizer",
    )
}
