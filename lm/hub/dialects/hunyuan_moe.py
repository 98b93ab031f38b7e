"""transformers' HunYuanMoEV1, whose "dynamic" scaling with an alpha is a larger rotary base at every length."""

from typing import Any

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs, Unused, number
from lm.hub.tables.rope import NEW, OLD, Rope
from lm.hub.tables.tensor_names import attention_names
from lm.model.rotary import NTKScaling

ROPE = Rope()


def _read_rope(config: Config) -> Knobs:
    given = ROPE.given(config)
    if given.get("rope_type", given.get("type")) != "dynamic" or not given.get("alpha"):
        return ROPE.read(config)
    rest = {name: value for name, value in config.items() if name != OLD}
    knobs = ROPE.read({**rest, NEW: given | {"rope_type": "default"}})
    return knobs | {"scaling": NTKScaling(number(f"{OLD}.alpha", given["alpha"], above=0))}


def _write_rope(knobs: Knobs) -> dict[str, Any]:
    scaling = knobs["scaling"]
    if not isinstance(scaling, NTKScaling):
        return ROPE.write(knobs)
    return ROPE.write(knobs | {"scaling": None}) | {
        OLD: {"rope_type": "dynamic", "factor": 1.0, "alpha": scaling.factor}
    }


def _same(knob: str, *keys: str) -> Knob:
    """A number that may be told for each layer, the same for all."""

    def read(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        if len({*values}) != 1:
            raise UserError(f"{keys[0]}={value!r} is not supported: give all layers the same")
        return values[0]

    return Knob(knob, keys, 1, read)


MODEL_TYPES = {
    "hunyuan_v1_moe": HFFormat(
        "hunyuan_moe",
        generation_classes("HunYuanMoEV1", tokens=None),
        decoder_fields(
            _same("experts", "num_experts", "num_local_experts"),
            _same("k", "moe_topk", "num_experts_per_tok"),
            Custom(ROPE.keys, _read_rope, _write_rope),
            Knob("attention_bias", "attention_bias", False),
            Knob("eps", "rms_norm_eps", 1e-5),
            Unused("eod_token_id", "output_router_logits"),
        ),
        decoder_names(
            (
                *attention_names("self_attn."),
                ("attention/q_norm", "self_attn.query_layernorm"),
                ("attention/k_norm", "self_attn.key_layernorm"),
            ),
            (
                *expert_names(router="gate.wg"),
                *((f"mlp/shared/{part}", f"mlp.shared_mlp.{part}_proj") for part in ("gate", "up", "down")),
            ),
        ),
        tokenizer=ANY_TOKENIZER,
    )
}
