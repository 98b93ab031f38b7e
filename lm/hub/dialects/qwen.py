"""transformers' Qwen2 and Qwen3, which tell the window of the later layers in four fields."""

from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs
from lm.hub.tables.rope import Rope
from lm.zoo.parts import GLOBAL, LOCAL, layers_of


def _read_windows(config: Config) -> Knobs:
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    kinds, first = config.get("layer_types"), config.get("max_window_layers", 28)
    if kinds is None:
        kinds = [LOCAL if window and i >= first else GLOBAL for i in range(config["num_hidden_layers"])]
    return {"window": window, "layer_types": tuple(kinds)}


def _write_windows(knobs: Knobs) -> dict:
    kinds = list(layers_of(knobs["layer_types"], knobs["layers"]))
    window = knobs["window"]
    return {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": kinds}


WINDOWS = Custom(
    ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"), _read_windows, _write_windows
)
ROPE = Rope(longest=32768)
SPANS = ANSWERS._replace(prefix="transformer.")
MODEL_TYPES = {
    "qwen2": HFFormat(
        "qwen2",
        generation_classes("Qwen2", answers=SPANS),
        decoder_fields(ROPE, WINDOWS),
        decoder_names(),
        tokenizer="Qwen2Tokenizer",
        tokenizer_always=True,
    ),
    "qwen3": HFFormat(
        "qwen3",
        generation_classes("Qwen3", answers=SPANS),
        decoder_fields(
            ROPE,
            WINDOWS,
            Knob("head_dim", "head_dim", 128),
            Knob("biases", "attention_bias", False, lambda b: ("q", "k", "v", "o") if b else (), bool),
        ),
        decoder_names(),
        tokenizer="Qwen2Tokenizer",
    ),
}
