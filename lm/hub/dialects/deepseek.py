"""transformers' DeepseekV2 and DeepseekV3, in so far as their layers are dense."""

import functools

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs, Unused, count, flag, number
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_HEAD, TensorNames, ignored

FURTHER = "num_nextn_predict_layers"
ROPE = Rope(longest=4096)


def _read_rope(config: Config) -> Knobs:
    knobs, weight = ROPE.read(config), ROPE.given(config).get("mscale_all_dim")
    return knobs | {"temper": number("mscale_all_dim", weight) if knobs["scaling"] and weight else 0.0}


def _write_rope(knobs: Knobs) -> dict:
    config = ROPE.write(knobs)
    if knobs["temper"] and config["rope_scaling"]:
        config["rope_scaling"]["mscale_all_dim"] = knobs["temper"]
    return config


def _read_dense(config: Config, default: int) -> Knobs:
    first, layers = config.get("first_k_dense_replace", default), config["num_hidden_layers"]
    if first < layers:
        raise UserError(
            f"first_k_dense_replace={first} of num_hidden_layers={layers}: layers with experts are not supported for "
            "this model type, only dense ones"
        )
    return {}


def _dense(default: int) -> Custom:
    """Only dense layers; `default` is the model type's own number of them."""
    return Custom(
        ("first_k_dense_replace",),
        functools.partial(_read_dense, default=default),
        lambda knobs: {"first_k_dense_replace": knobs["layers"]},
    )


def _read_kv(config: Config) -> Knobs:
    kv, heads = config.get("num_key_value_heads"), config["num_attention_heads"]
    if kv not in (None, heads):
        raise UserError(
            f"num_key_value_heads={kv} is not supported: latent attention has one for each of {heads} heads"
        )
    return {}


FIELDS = decoder_fields(
    Custom(("num_key_value_heads",), _read_kv, lambda knobs: {"num_key_value_heads": knobs["heads"]}),
    Custom(ROPE.keys, _read_rope, _write_rope),
    Knob("kv_rank", "kv_lora_rank", 512),
    Knob("q_rank", "q_lora_rank", 1536),
    Knob("nope_dim", "qk_nope_head_dim", 128),
    Knob("rope_dim", "qk_rope_head_dim", 64),
    Knob("value_dim", "v_head_dim", 128),
    Knob("attention_bias", "attention_bias", False),
    Unused("head_dim", "qk_head_dim"),  # sums of others
    Unused("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "n_group"),
    Unused("topk_group", "topk_method", "norm_topk_prob", "routed_scaling_factor", "scoring_func", "moe_layer_freq"),
    Unused("output_router_logits", "aux_loss_alpha", "seq_aux", "ep_size"),
)
NAMES = decoder_names(
    (
        ("attention/q", "self_attn.q_proj"),
        ("attention/q_up", "self_attn.q_b_proj"),
        ("attention/q_latent", "self_attn.q_a_proj"),
        ("attention/q_latent_norm", "self_attn.q_a_layernorm"),
        (("attention/latent", "attention/k_pe"), "self_attn.kv_a_proj_with_mqa"),
        ("attention/latent_norm", "self_attn.kv_a_layernorm"),
        (("attention/k", "attention/v"), "self_attn.kv_b_proj", BY_HEAD),
        ("attention/o", "self_attn.o_proj"),
    )
)


def _names(config: Config) -> TensorNames:
    """Modules that predict further tokens stand behind the last layer, and do not touch the model's own outputs."""
    further, layers = (count(name)(config[name]) if config.get(name) else 0 for name in (FURTHER, "num_hidden_layers"))
    return (*NAMES, *ignored(*(f"model.layers.{layers + i}.{{any}}" for i in range(min(further, layers)))))


MODEL_TYPES = {
    "deepseek_v2": HFFormat(
        "deepseek_v2",
        generation_classes("DeepseekV2", tokens=None),
        (*FIELDS, Knob("mlp_bias", "mlp_bias", False), _dense(0)),
        NAMES,
    ),
    "deepseek_v3": HFFormat(
        "deepseek_v3",
        generation_classes("DeepseekV3"),
        (*FIELDS, flag("interleaved", "rope_interleave", True), _dense(3), Unused(FURTHER)),
        _names,
    ),
}
