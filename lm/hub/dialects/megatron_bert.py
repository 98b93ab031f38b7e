"""transformers' MegatronBert."""

from lm.hub.tables.encoders import encoder_classes, encoder_fields, pretrained_names
from lm.hub.tables.format import HFFormat
from lm.hub.tables.tensor_names import norm_names

MODEL_TYPES = {
    "megatron-bert": HFFormat(
        "megatron_bert",
        encoder_classes("MegatronBert", "bert."),
        encoder_fields(),
        pretrained_names("bert.", norm_names("attention.ln", "ln"), norm="encoder.ln"),
        "bert.",
        tokenizer="BertTokenizer",
    )
}
