"""transformers' Phimoe, which tells what multiplies sines and cosines of short and of long texts."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, Fixed, HFClass, HFFormat, Knob, Knobs, Unused, number
from lm.hub.tables.rope import OLD, Rope
from lm.model.rotary import LongScaling

ROPE = Rope(theta=1000000.0, longest=131072, reread=True)
MAGNITUDES = {"magnitude": "short_mscale", "long_magnitude": "long_mscale"}


def _read(config: Config) -> Knobs:
    knobs, given = ROPE.read(config), ROPE.given(config)
    scaling = knobs["scaling"]
    if scaling is None:
        return knobs
    if not isinstance(scaling, LongScaling):
        raise UserError(f"{OLD} of a {type(scaling).__name__} is not supported for this model type: only 'longrope'")
    found: dict[str, Any] = {name: number(f"{OLD}.{key}", given.get(key), above=0) for name, key in MAGNITUDES.items()}
    return knobs | {"scaling": dataclasses.replace(scaling, **found)}


def _write(knobs: Knobs) -> dict[str, Any]:
    written = ROPE.write(knobs)
    if isinstance(scaling := knobs["scaling"], LongScaling):
        long = scaling.magnitude if scaling.long_magnitude is None else scaling.long_magnitude
        written[OLD] |= {"short_mscale": scaling.magnitude, "long_mscale": long}
    return written


MODEL_TYPES = {
    "phimoe": HFFormat(
        "phimoe",
        # Published files name the class of the code that they came with.
        generation_classes("Phimoe", tokens=None) | {"PhiMoEForCausalLM": HFClass()},
        decoder_fields(
            ROUTED,
            Knob("experts", ("num_local_experts", "num_experts"), 16),
            Fixed("num_experts_per_tok", (2,)),
            Knob("slack", "router_jitter_noise", 0.01),
            Knob("kv_heads", "num_key_value_heads", 8),
            Knob("window", "sliding_window", None, lambda w: w or 0, lambda w: w or None),
            Custom(ROPE.keys, _read, _write),
            Knob("attention_bias", "attention_bias", False),
            Knob("head_bias", "lm_head_bias", False),
            Knob("eps", "rms_norm_eps", 1e-5),
            Unused("input_jitter_noise", "hidden_dropout"),
        ),
        decoder_names(ATTENTION, expert_names("block_sparse_moe.", parts=("w1", "w3", "w2"))),
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
