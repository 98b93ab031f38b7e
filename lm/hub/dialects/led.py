"""transformers' LED."""

from lm.hub.dialects.longformer import WINDOWS
from lm.hub.tables.classes import ANSWERS, BASE_MODEL
from lm.hub.tables.encoder_decoders import HEAD, pair_fields, pair_names, tower
from lm.hub.tables.format import Config, HFClass, HFFormat, Knob
from lm.hub.tables.tensor_names import TensorNames

PROJECTIONS = (("q", "query"), ("k", "key"), ("v", "value"))
READS = (
    *((f"attention/{x}", f"self_attn.longformer_self_attn.{name}") for x, name in PROJECTIONS),
    *((f"attention/anchors/{x}", f"self_attn.longformer_self_attn.{name}_global") for x, name in PROJECTIONS),
    ("attention/o", "self_attn.output"),
)


def _names(config: Config) -> TensorNames:
    towers = tower("encoder", "led.encoder.", READS), tower("decoder", "led.decoder.")
    return (*pair_names(config, "led.shared.weight", *towers), *HEAD)


MODEL_TYPES = {
    "led": HFFormat(
        "led",
        {"LEDForConditionalGeneration": HFClass(), "LEDModel": BASE_MODEL, "LEDForQuestionAnswering": ANSWERS},
        pair_fields(
            Knob("context", "max_encoder_position_embeddings", 16384),
            Knob("decoder_context", "max_decoder_position_embeddings", 1024),
            WINDOWS,
        ),
        _names,
        "led.",
        tokenizer="RobertaTokenizer",
    )
}
