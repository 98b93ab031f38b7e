"""transformers' GptOss, in whose files experts are one tensor for each of their matrices, gates and what they gate in
alternate columns. A config without rotary parameters means the published ones."""

from typing import Any

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, ROUTED, decoder_fields, decoder_names, layer_kinds
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs, Unused
from lm.hub.tables.rope import NEW, OLD, THETA, Rope
from lm.hub.tables.tensor_names import SAME, Layout
from lm.zoo.gpt_oss import PUBLISHED

ROPE = Rope(theta=150000.0, longest=131072)
GATES = {1.702: "quick_gelu", 1.0: "silu"}  # by what the sigmoid's input is multiplied by


def _read_rope(config: Config) -> Knobs:
    if not config.get(NEW) and not config.get(OLD):
        return ROPE.read({**config, OLD: ROPE.write({"theta": ROPE.theta, "scaling": PUBLISHED})[OLD]})
    return ROPE.read(config)


def _write_rope(knobs: Knobs) -> dict[str, Any]:
    written = ROPE.write(knobs)
    return {NEW: {THETA: written.pop(THETA), **(written.pop(OLD) or {"rope_type": "default"})}, **written}


INTERLEAVED = Layout(groups="d_ff")
EXPERTS = ("body/stack/{layer}/mlp/experts/", "model.layers.{layer}.mlp.experts.")
MODEL_TYPES = {
    "gpt_oss": HFFormat(
        "gpt_oss",
        generation_classes("GptOss"),
        decoder_fields(
            ROUTED,
            Knob("experts", ("num_local_experts", "num_experts"), 128),
            Knob("k", "num_experts_per_tok", 4),
            Knob("kv_heads", "num_key_value_heads", 8),
            Knob("head_dim", "head_dim", 64),
            Knob("window", "sliding_window", 128),
            layer_kinds(2),
            Knob("activation", "swiglu_alpha", 1.702, GATES.__getitem__, {v: k for k, v in GATES.items()}.get),
            Knob("limit", "swiglu_limit", 7.0),
            Custom(ROPE.keys, _read_rope, _write_rope),
            Knob("attention_bias", "attention_bias", True),
            Knob("eps", "rms_norm_eps", 1e-5),
            Unused("hidden_act", "experts_per_token", "initial_context_length"),
        ),
        (
            *decoder_names(ATTENTION, (("mlp/router", "mlp.router"),)),
            ("body/stack/{layer}/attention/sinks", "model.layers.{layer}.self_attn.sinks", SAME),
            *(
                (
                    tuple(f"{EXPERTS[0]}{part}/{leaf}" for part in parts),
                    f"{EXPERTS[1]}{name}{'_bias' if leaf == 'b' else ''}",
                    layout,
                )
                for parts, name, layout in (
                    (("gate", "up"), "gate_up_proj", INTERLEAVED),
                    (("down",), "down_proj", SAME),
                )
                for leaf in "wb"
            ),
        ),
        tokenizer=ANY_TOKENIZER,
    )
}
