"""The dense layers of DeepSeek-V2 (DeepSeek-AI 2024, arXiv 2405.04434) and V3 (2412.19437): LLaMA's, with multi-head
latent attention: keys and values of all heads are read from one latent per token, and a part of each head's query and
one key for all heads carry the (interleaved) rotary positions. Norms of latents have an eps of their own.

The published models have a few such layers in front, then layers with experts; configs with those are refused."""

import functools

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling, yarn_magnitude
from lm.model.special.latent import LatentAttention
from lm.model.transformer import LanguageModel
from lm.zoo import llama
from lm.zoo.dialect import Config, Custom, Dialect, Field, Knob, Knobs, Unused, act, count, flag, generators, number
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, Layout, TensorNames, rows, unused
from lm.zoo.parts import decoder, pre_norm
from lm.zoo.rope import Rope


def deepseek(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_rank: int = 512,
    q_rank: int | None = None,
    nope_dim: int = 128,
    rope_dim: int = 64,
    value_dim: int = 128,
    vocab: int = 129280,
    activation: str = "silu",
    theta: float = 10000.0,
    interleaved: bool = True,
    scaling: Scaling | None = None,
    temper: float = 0.0,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-6,
    latent_eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A dense DeepSeek-V2 or V3 of any shape. With a `scaling` by a factor f scores are multiplied by
    (0.1 temper ln f + 1)^2 (YaRN's temperature, there called mscale_all_dim)."""
    init, norm = Normal(0.02), RMSNorm(eps)
    stretch = getattr(scaling, "factor", 1.0)
    attention = LatentAttention(
        heads=heads,
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=value_dim,
        kv_rank=kv_rank,
        q_rank=q_rank,
        rotary=Rotary(theta=theta, interleaved=interleaved, scaling=scaling),
        norm=RMSNorm(latent_eps),
        scale=(nope_dim + rope_dim) ** -0.5 * yarn_magnitude(stretch, temper) ** 2,
        bias=attention_bias,
        init=init,
        out_init=init,
    )
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init)
    blocks = [pre_norm(attention, mlp, norm)] * layers
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {
    "deepseek_v2": Family(deepseek, {}, "arXiv 2405.04434"),
    "deepseek_v3": Family(deepseek, {}, "arXiv 2412.19437"),
}

# transformers' DeepseekV2ForCausalLM and DeepseekV3ForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "model.embed_tokens.weight", SAME),
    *rows(
        LAYER,
        "model.layers.{layer}.",
        ("attention_norm", "input_layernorm"),
        ("attention/q", "self_attn.q_proj"),
        ("attention/q_up", "self_attn.q_b_proj"),
        ("attention/q_latent", "self_attn.q_a_proj"),
        ("attention/q_latent_norm", "self_attn.q_a_layernorm"),
        (("attention/latent", "attention/k_pe"), "self_attn.kv_a_proj_with_mqa"),
        ("attention/latent_norm", "self_attn.kv_a_layernorm"),
        (("attention/k", "attention/v"), "self_attn.kv_b_proj", Layout(transpose=True, groups="heads")),
        ("attention/o", "self_attn.o_proj"),
        ("mlp_norm", "post_attention_layernorm"),
        ("mlp/gate", "mlp.gate_proj"),
        ("mlp/up", "mlp.up_proj"),
        ("mlp/down", "mlp.down_proj"),
    ),
    *rows("body/stack/", "model.", ("norm", "norm")),
    ("head/w", "lm_head.weight", SAME),
    *unused("model.layers.{layer}.self_attn.rotary_emb.inv_freq"),
)
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


_FIELDS: tuple[Field, ...] = (
    *(f for f in llama.SHARED if f.names not in (("head_dim",), ("num_key_value_heads",))),
    Custom(("num_key_value_heads",), _read_kv, lambda knobs: {"num_key_value_heads": knobs["heads"]}),
    Custom(ROPE.names, _read_rope, _write_rope),
    Knob("kv_rank", "kv_lora_rank", 512),
    Knob("q_rank", "q_lora_rank", 1536),
    Knob("nope_dim", "qk_nope_head_dim", 128),
    Knob("rope_dim", "qk_rope_head_dim", 64),
    Knob("value_dim", "v_head_dim", 128),
    act("activation", "hidden_act", "silu"),
    Knob("attention_bias", "attention_bias", False),
    Knob("eps", "rms_norm_eps", 1e-6),
    Knob("tied", "tie_word_embeddings", False),
    Unused("head_dim", "qk_head_dim"),  # sums of others
    Unused("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "n_group"),
    Unused("topk_group", "topk_method", "norm_topk_prob", "routed_scaling_factor", "scoring_func", "moe_layer_freq"),
    Unused("output_router_logits", "aux_loss_alpha", "seq_aux", "ep_size"),
)


def _names(config: Config) -> TensorNames:
    """Modules that predict further tokens stand behind the last layer, and do not touch the model's own outputs."""
    further, layers = (count(name)(config[name]) if config.get(name) else 0 for name in (FURTHER, "num_hidden_layers"))
    return (*HF, *unused(*(f"model.layers.{layers + i}.{{any}}" for i in range(min(further, layers)))))


DIALECTS = {
    "deepseek_v2": Dialect(
        "deepseek_v2",
        generators("DeepseekV2", tokens=None),
        (*_FIELDS, Knob("mlp_bias", "mlp_bias", False), _dense(0)),
        HF,
    ),
    "deepseek_v3": Dialect(
        "deepseek_v3",
        generators("DeepseekV3"),
        (*_FIELDS, flag("interleaved", "rope_interleave", True), _dense(3), Unused(FURTHER)),
        _names,
    ),
}
