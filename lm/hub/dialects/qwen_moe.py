"""transformers' Qwen2Moe, of whose first layers every second one may have a window, and Qwen3Moe."""

from lm.core.errors import UserError
from lm.hub.dialects.qwen import SPANS
from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import ATTENTION, GATED, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs, flag
from lm.hub.tables.rope import Rope
from lm.zoo.parts import GLOBAL, LOCAL, layers_of

WINDOWS = ("use_sliding_window", "sliding_window")


def _window(config: Config) -> int | None:
    return config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None


def _read_turns(config: Config) -> Knobs:
    """Every second of the first layers has a window, from the first on, where nothing else is said."""
    window, kinds = _window(config), config.get("layer_types")
    if kinds is None:
        last = config.get("max_window_layers", 28) if window else 0
        kinds = [GLOBAL if i % 2 or i >= last else LOCAL for i in range(config["num_hidden_layers"])]
    if LOCAL in kinds and not window:
        raise UserError(f"layer_types has {LOCAL!r}, but use_sliding_window is not set: give a window")
    return {"window": window, "layer_types": tuple(kinds)}


def _read_all(config: Config) -> Knobs:
    """All layers have a window, or none."""
    window = _window(config)
    return {"window": window, "layer_types": (LOCAL if window else GLOBAL,) * config["num_hidden_layers"]}


def _write(knobs: Knobs) -> dict:
    window = knobs["window"]
    return {"use_sliding_window": window is not None, "sliding_window": window}


def _write_turns(knobs: Knobs) -> dict:
    return _write(knobs) | {"layer_types": list(layers_of(knobs["layer_types"], knobs["layers"]))}


SPARSE = (
    ROUTED,
    Rope(longest=32768),
    Knob("k", "num_experts_per_tok"),
    Knob("expert_ff", "moe_intermediate_size"),
    flag("normalize", "norm_topk_prob", False),
    Knob("every", "decoder_sparse_step", 1),
    Knob("dense", "mlp_only_layers", (), lambda layers: tuple(layers or ()), list),
)
NAMES = decoder_names(ATTENTION, (*GATED, *expert_names(shared="shared_expert")))
MODEL_TYPES = {
    "qwen2_moe": HFFormat(
        "qwen2_moe",
        generation_classes("Qwen2Moe", answers=ANSWERS),
        decoder_fields(
            *SPARSE,
            Knob("experts", ("num_experts", "num_local_experts"), 60),
            Knob("shared_ff", "shared_expert_intermediate_size", 5632),
            Knob("biases", "qkv_bias", True, lambda b: ("q", "k", "v") if b else (), bool),
            Custom((*WINDOWS, "max_window_layers", "layer_types"), _read_turns, _write_turns),
        ),
        NAMES,
        tokenizer="Qwen2Tokenizer",
    ),
    "qwen3_moe": HFFormat(
        "qwen3_moe",
        generation_classes("Qwen3Moe", answers=SPANS),
        decoder_fields(
            *SPARSE,
            Knob("experts", ("num_experts", "num_local_experts"), 128),
            Knob("kv_heads", "num_key_value_heads", 4),
            Knob("biases", "attention_bias", False, lambda b: ("q", "k", "v", "o") if b else (), bool),
            Custom(WINDOWS, _read_all, _write),
        ),
        NAMES,
        tokenizer="Qwen2Tokenizer",
    ),
}
