"""transformers' Olmo, whose norms have no parameters, Olmo2, which norms after each sub-layer, and Olmo3."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import SANDWICH, decoder_fields, decoder_names, layer_kinds
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob
from lm.hub.tables.rope import Rope, RopeByLayer
from lm.zoo.parts import GLOBAL

BIAS = Knob("attention_bias", "attention_bias", False)
EPS = Knob("eps", "rms_norm_eps", 1e-5)
MODEL_TYPES = {
    "olmo": HFFormat(
        "olmo",
        generation_classes("Olmo", tokens=None),
        decoder_fields(BIAS, Knob("clip", "clip_qkv", None), without=("rms_norm_eps",)),
        decoder_names(),
        tokenizer="GPTNeoXTokenizer",
    ),
    "olmo2": HFFormat(
        "olmo2",
        generation_classes("Olmo2", tokens=None),
        decoder_fields(BIAS, EPS),
        decoder_names(norms=SANDWICH),
        tokenizer=ANY_TOKENIZER,
        tokenizer_before="GPT2Tokenizer",
    ),
    "olmo3": HFFormat(
        "olmo3",
        generation_classes("Olmo3", tokens=None),
        decoder_fields(
            BIAS,
            EPS,
            Knob("window", "sliding_window", 4096),
            layer_kinds(4),
            # The base of local layers is in rope_parameters only: no file has this field.
            RopeByLayer(Rope(theta=500000.0), Rope(theta=500000.0, theta_key="rope_local_base_freq"), (GLOBAL,)),
        ),
        decoder_names(norms=SANDWICH),
        tokenizer=ANY_TOKENIZER,
    ),
}
