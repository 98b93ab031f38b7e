"""transformers' BertGeneration: Bert without types of tokens and without a pooler, whose head is the token table."""

from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.encoders import encoder_fields, encoder_names, lm_names
from lm.hub.tables.format import Config, HFClass, HFFormat
from lm.hub.tables.tensor_names import TensorNames


def _names(config: Config) -> TensorNames:
    return (*encoder_names("bert."), *lm_names(config, "lm_head.decoder", "lm_head.bias"))


MODEL_TYPES = {
    "bert-generation": HFFormat(
        "bert_generation",
        {"BertGenerationEncoder": BASE_MODEL, "BertGenerationDecoder": HFClass({"pretraining": ("lm",)})},
        encoder_fields(without=("type_vocab_size", "position_embedding_type")),
        _names,
        "bert.",
    )
}
