"""transformers' DeepseekV2 and DeepseekV3.

V2's own code divides the weights of a token's experts by their sum where norm_topk_prob says so, and transformers never
does: the published models say no, and one that says yes is refused. How V2's experts are chosen stands in topk_method;
V3's code knows one way only.

Behind the last layer V3's files hold the modules that predict further tokens, of which transformers' class has none.
They are read by the class that those who serve the model call DeepSeekMTPModel: model, modules and all."""

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import GATED, NORMS, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import (
    Config,
    Custom,
    Field,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    count,
    flag,
    number,
)
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_HEAD, LAYER, SAME, SWAPPED, Entry, TensorNames, entries, ignored

FURTHER = "num_nextn_predict_layers"
GREEDY, BY_GROUPS = "greedy", "group_limited_greedy"
GROUPS = {"groups": "n_group", "kept_groups": "topk_group"}
ROPE = Rope(longest=4096)


def _read_rope(config: Config) -> Knobs:
    knobs, weight = ROPE.read(config), ROPE.given(config).get("mscale_all_dim")
    return knobs | {"temper": number("mscale_all_dim", weight) if knobs["scaling"] and weight else 0.0}


def _write_rope(knobs: Knobs) -> dict:
    config = ROPE.write(knobs)
    if knobs["temper"] and config["rope_scaling"]:
        config["rope_scaling"]["mscale_all_dim"] = knobs["temper"]
    return config


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
    Knob("every", "moe_layer_freq", 1),
    Unused("output_router_logits", "aux_loss_alpha", "seq_aux", "ep_size"),
)


def _none(knob: str, hf_key: str | tuple[str, ...], default: int) -> Knob:
    """A knob that holds how many there are, where null means none."""
    return Knob(knob, hf_key, default, lambda value: value or 0)


def _read_groups(config: Config) -> Knobs:
    method = config.get("topk_method") or GREEDY
    if method == GREEDY:
        return {"groups": 1, "kept_groups": 1}
    if method != BY_GROUPS:
        raise UserError(f"topk_method={method!r} is not supported, only {GREEDY!r} or {BY_GROUPS!r}")
    return {knob: count(name)(config.get(name)) for knob, name in GROUPS.items()}


def _write_groups(knobs: Knobs) -> dict:
    if knobs["groups"] == 1:
        return {"topk_method": GREEDY}
    return {"topk_method": BY_GROUPS} | {name: knobs[knob] for knob, name in GROUPS.items()}


def _one(knob: str, default: int) -> Knob:
    """Of groups, where null means that there are none: all are one."""
    return Knob(knob, GROUPS[knob], default, lambda value: 1 if value is None else value)


def balanced_fields(
    *,
    experts: int,
    shared: int,
    expert_ff: int,
    first_dense: int,
    scale: float,
    normalize: bool,
    groups: int = 1,
    kept: int = 1,
) -> tuple[Field, ...]:
    """V3's experts and their router, with a model type's own defaults."""
    return (
        _none("experts", ("n_routed_experts", "num_local_experts"), experts),
        _none("shared", "n_shared_experts", shared),
        Knob("expert_ff", "moe_intermediate_size", expert_ff),
        Knob("first_dense", "first_k_dense_replace", first_dense),
        Knob("scale", "routed_scaling_factor", scale),
        _one("groups", groups),
        _one("kept_groups", kept),
        flag("normalize", "norm_topk_prob", normalize),
    )


LAYER_NAMES = (
    (
        ("attention/q", "self_attn.q_proj"),
        ("attention/q_up", "self_attn.q_b_proj"),
        ("attention/q_latent", "self_attn.q_a_proj"),
        ("attention/q_latent_norm", "self_attn.q_a_layernorm"),
        (("attention/latent", "attention/k_pe"), "self_attn.kv_a_proj_with_mqa"),
        ("attention/latent_norm", "self_attn.kv_a_layernorm"),
        (("attention/k", "attention/v"), "self_attn.kv_b_proj", BY_HEAD),
        ("attention/o", "self_attn.o_proj"),
    ),
    (*GATED, *expert_names(shared="shared_experts")),
)
BALANCE = ("mlp/router/balance", "mlp.gate.e_score_correction_bias")
BALANCES: Entry = (f"{LAYER}{BALANCE[0]}", f"model.layers.{{layer}}.{BALANCE[1]}", SAME)
NAMES = (*decoder_names(*LAYER_NAMES), BALANCES)


AHEAD = "DeepSeekMTPModel"


def _names(config: Config) -> TensorNames:
    """Modules that predict further tokens stand behind the last layer, and do not touch the model's own outputs."""
    further, layers = (count(name)(config[name]) if config.get(name) else 0 for name in (FURTHER, "num_hidden_layers"))
    if config.get("architectures") == [AHEAD]:
        return (*NAMES, *_further_names(further if FURTHER in config else 1, layers))
    return (*NAMES, *left_out(layers, further))


def left_out(layers: int, further: int) -> TensorNames:
    """Modules behind the last layer that are not read."""
    return ignored(*(f"model.layers.{layers + i}.{{any}}" for i in range(min(further, layers))))


def _further_names(further: int, layers: int) -> TensorNames:
    """Those modules' own names. They hold the tables of tokens and of the head once more."""
    found: list[Entry] = [("head/lm/w", "lm_head.weight", SAME)]
    for i in range(further):
        ours, theirs = f"head/{i + 1}/", f"model.layers.{layers + i}."
        layer = f"{ours}module/{{layer}}/"
        found += entries(
            ours, theirs, ("token_norm", "enorm"), ("state_norm", "hnorm"), ("project", "eh_proj", SWAPPED)
        )
        found += entries(f"{ours}module/", theirs, ("norm", "shared_head.norm"))
        found += entries(layer, theirs, *(part for group in (*LAYER_NAMES, NORMS) for part in group))
        found += [(f"{layer}{BALANCE[0]}", f"{theirs}{BALANCE[1]}", SAME)]
        found += [("head/token", f"{theirs}embed_tokens.weight", SAME)]
        found += [("head/lm/w", f"{theirs}shared_head.head.weight", SAME)]
    return tuple(found)


PLAIN = {name: c._replace(knobs={"further": 0}) for name, c in generation_classes("DeepseekV3").items()}

MODEL_TYPES = {
    "deepseek_v2": HFFormat(
        "deepseek_v2",
        generation_classes("DeepseekV2", tokens=None),
        (
            *FIELDS,
            Knob("k", "num_experts_per_tok", None),
            Knob("mlp_bias", "mlp_bias", False),
            _none("experts", "n_routed_experts", 64),
            _none("shared", "n_shared_experts", 2),
            Knob("expert_ff", "moe_intermediate_size", 1407),
            Knob("first_dense", "first_k_dense_replace", 0),
            Knob("scale", "routed_scaling_factor", 1.0),
            Custom(("topk_method", *GROUPS.values()), _read_groups, _write_groups),
            Fixed("scoring_func", ("softmax",)),
            Fixed("norm_topk_prob", (False,)),
        ),
        NAMES,
    ),
    "deepseek_v3": HFFormat(
        "deepseek_v3",
        PLAIN | {AHEAD: HFClass()},
        (
            *FIELDS,
            Knob("k", "num_experts_per_tok", 8),
            flag("interleaved", "rope_interleave", True),
            *balanced_fields(
                experts=256, shared=1, expert_ff=2048, first_dense=3, scale=2.5, normalize=True, groups=8, kept=4
            ),
            Fixed("topk_method", ("noaux_tc",)),
            Fixed("scoring_func", ("sigmoid",)),
            Knob("further", FURTHER, 1),
        ),
        _names,
    ),
}
