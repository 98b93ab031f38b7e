"""transformers' Bert."""

from lm.hub.tables.encoders import encoder_classes, encoder_fields, pretrained_names
from lm.hub.tables.format import HFFormat

MODEL_TYPES = {
    "bert": HFFormat(
        "bert",
        encoder_classes("Bert", "bert.", "LMHeadModel"),
        encoder_fields(),
        pretrained_names("bert."),
        "bert.",
        tokenizer="BertTokenizer",
    ),
}
