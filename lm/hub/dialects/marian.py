"""transformers' Marian and Pegasus. Their files hold the sinusoids, and what they hold counts; some lack them, which
then are computed."""

from lm.hub.tables.encoder_decoders import (
    encoder_decoder_classes,
    encoder_decoder_fields,
    encoder_decoder_names,
    shares,
)
from lm.hub.tables.format import Config, Custom, Fixed, HFFormat, Knob, Knobs, count
from lm.hub.tables.tensor_names import OPTIONAL, TensorNames
from lm.zoo.marian import sinusoids


def _names(config: Config) -> TensorNames:
    return tuple(
        (ours, theirs, OPTIONAL if str(ours).partition("/")[2].startswith("embed/position/") else layout)
        for ours, theirs, layout in encoder_decoder_names(config)
    )


def _read_vocabulary(config: Config) -> Knobs:
    return {"decoder_vocab": None if shares(config) else config.get("decoder_vocab_size")}


def _write_vocabulary(knobs: Knobs) -> dict:
    own = knobs["decoder_vocab"] or knobs["vocab"]
    return {"share_encoder_decoder_embeddings": knobs["shared"], "decoder_vocab_size": own}


STATIC = (
    Fixed("static_position_embeddings", (True,)),
    Knob(
        "position",
        "max_position_embeddings",
        1024,
        lambda rows: sinusoids(count("max_position_embeddings")(rows)),
        lambda position: position.rows,
    ),
)
TWO_VOCABULARIES = Custom(
    ("share_encoder_decoder_embeddings", "decoder_vocab_size"), _read_vocabulary, _write_vocabulary
)
MODEL_TYPES = {
    "marian": HFFormat(
        "marian",
        encoder_decoder_classes("Marian", "MTModel"),
        encoder_decoder_fields(TWO_VOCABULARIES, *STATIC),
        _names,
        tokenizer="MarianTokenizer",
    ),
    "pegasus": HFFormat(
        "pegasus",
        encoder_decoder_classes("Pegasus"),
        encoder_decoder_fields(*STATIC, norm_first=True),
        _names,
        tokenizer="PegasusTokenizer",
    ),
}
