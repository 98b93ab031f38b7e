"""transformers' Dots1, of whose layers later ones may have a window."""

from lm.core.errors import UserError
from lm.hub.dialects.deepseek import BALANCES, balanced_fields
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, GATED, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs
from lm.zoo.parts import GLOBAL, LOCAL, layers_of

WINDOWS = ("sliding_window", "max_window_layers", "layer_types")


def _read_windows(config: Config) -> Knobs:
    window, first, kinds = (
        config.get("sliding_window", 4096),
        config.get("max_window_layers", 62),
        config.get(WINDOWS[2]),
    )
    if kinds is None:
        kinds = [LOCAL if window and i >= first else GLOBAL for i in range(config["num_hidden_layers"])]
    if LOCAL in kinds and not window:
        raise UserError(f"layer_types has {LOCAL!r}, but there is no sliding_window: give one")
    return {"window": window, "layer_types": tuple(kinds)}


def _write_windows(knobs: Knobs) -> dict:
    kinds = list(layers_of(knobs["layer_types"], knobs["layers"]))
    return {"sliding_window": knobs["window"], "layer_types": kinds}


MODEL_TYPES = {
    "dots1": HFFormat(
        "dots1",
        generation_classes("Dots1", sequences=False, tokens=None),
        decoder_fields(
            ROUTED,
            Knob("kv_heads", "num_key_value_heads", 32),
            Knob("k", "num_experts_per_tok"),
            *balanced_fields(experts=0, shared=0, expert_ff=1408, first_dense=0, scale=1.0, normalize=False),
            Knob("biases", "attention_bias", False, lambda b: ("q", "k", "v", "o") if b else (), bool),
            Custom(WINDOWS, _read_windows, _write_windows),
        ),
        (*decoder_names(ATTENTION, (*GATED, *expert_names(shared="shared_experts"))), BALANCES),
        tokenizer=ANY_TOKENIZER,
    )
}
