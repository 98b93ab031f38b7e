"""transformers' SmolLM3, which tells in five fields which layers rotate and which have a window."""

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs
from lm.hub.tables.rope import Rope
from lm.zoo.parts import GLOBAL, LOCAL

WINDOWED, WINDOW = "use_sliding_window", "sliding_window"
ROTARY, EVERY = "no_rope_layers", "no_rope_layer_interval"


def _read(config: Config) -> Knobs:
    """`no_rope_layers` holds 1 for layers that do rotate. Unless `layer_types` says otherwise, those that do not have
    the window."""
    layers, every = config["num_hidden_layers"], config.get(EVERY, 4)
    listed = config.get(ROTARY)
    rotates = tuple(map(bool, listed[:layers])) if listed else tuple((i + 1) % every != 0 for i in range(layers))
    window = config.get(WINDOW)
    windowed = bool(config.get(WINDOWED)) and window is not None
    kinds = config.get("layer_types") or [GLOBAL if rotate or not windowed else LOCAL for rotate in rotates]
    if LOCAL in kinds and window is None:
        raise UserError(f"layer_types holds {LOCAL!r}, but {WINDOW} is null: give the window's width")
    knobs: Knobs = {"rotary_layers": rotates, "layer_types": tuple(kinds)}
    return knobs | ({} if window is None else {"window": window})


def _write(knobs: Knobs) -> dict:
    layers, every = knobs["layers"], knobs["rotary_pattern"]
    return {
        ROTARY: [int(x) for x in knobs["rotary_layers"] or ((i + 1) % every != 0 for i in range(layers))],
        "layer_types": list(knobs["layer_types"]) or [GLOBAL] * layers,
        WINDOWED: LOCAL in knobs["layer_types"],
        WINDOW: knobs["window"] if LOCAL in knobs["layer_types"] else None,
    }


MODEL_TYPES = {
    "smollm3": HFFormat(
        "smollm3",
        generation_classes("SmolLM3", answers=ANSWERS._replace(prefix="transformer.")),
        decoder_fields(
            Knob("kv_heads", "num_key_value_heads", 4),
            Rope(theta=2000000.0, longest=32768),
            Custom((ROTARY, EVERY, "layer_types", WINDOWED, WINDOW), _read, _write),
            Knob("attention_bias", "attention_bias", False),
            Knob("mlp_bias", "mlp_bias", False),
            Knob("tied", "tie_word_embeddings", True),
        ),
        decoder_names(),
    )
}
