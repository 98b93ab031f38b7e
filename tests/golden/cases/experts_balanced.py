"""Decoders whose experts are balanced by a bias of the choice, beside those with latent attention: name -> case."""

from tests.golden.case import Case
from tests.golden.cases.decoders import LLAMA, rope

EXPERTS = {
    **LLAMA,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 6,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}
ERNIE = {"moe_num_experts": 5, "moe_k": 3, "moe_intermediate_size": 6}
ROUTED = tuple(
    f"model.layers.2.mlp.{name}.weight" for name in ("gate", "experts.5.down_proj", "shared_experts.gate_proj")
)

CASES: dict[str, Case] = {
    "dots1": Case(
        "Dots1ForCausalLM",
        {
            **EXPERTS,
            "num_key_value_heads": 2,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": True,
            "sliding_window": 7,
            "max_window_layers": 2,
            **rope("default", 100.0),
        },
        (*ROUTED, "model.layers.1.self_attn.q_norm.weight"),
    ),
    "dots1_plain": Case(  # experts everywhere, weights as they are, biases, windows by layer
        "Dots1ForCausalLM",
        {
            **EXPERTS,
            "num_hidden_layers": 2,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "num_experts_per_tok": 1,
            "first_k_dense_replace": 0,
            "attention_bias": True,
            "hidden_act": "gelu",
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "glm4_moe": Case(
        "Glm4MoeForCausalLM",
        {
            **EXPERTS,
            "num_key_value_heads": 2,
            "n_group": 2,
            "topk_group": 1,
            "attention_bias": True,
            "use_qk_norm": True,
            "head_dim": 8,
            **rope("default", 100.0, partial_rotary_factor=0.5),
        },
        (*ROUTED, "model.layers.1.self_attn.k_norm.weight", "model.layers.0.self_attn.v_proj.bias"),
    ),
    "glm4_moe_plain": Case(
        "Glm4MoeForCausalLM",
        {
            **EXPERTS,
            "num_hidden_layers": 2,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "num_experts_per_tok": 1,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
            "hidden_act": "relu",
            "tie_word_embeddings": True,
            **rope("linear", 1000.0, factor=2.0, partial_rotary_factor=1.0),
        },
    ),
    "ernie4_5_moe": Case(
        "Ernie4_5_MoeForCausalLM",
        {
            **LLAMA,
            **ERNIE,
            "num_hidden_layers": 5,
            "num_key_value_heads": 2,
            "moe_layer_end_index": 3,
            "moe_layer_interval": 2,
            "use_bias": True,
            "tie_word_embeddings": False,
            **rope("default", 100.0),
        },
        (
            "model.layers.1.mlp.gate.weight",
            "model.layers.3.mlp.experts.2.up_proj.weight",
            "model.layers.1.mlp.shared_experts.down_proj.bias",
            "lm_head.bias",
        ),
    ),
    "ernie4_5_moe_plain": Case(
        "Ernie4_5_MoeForCausalLM",
        {
            **LLAMA,
            **ERNIE,
            "num_hidden_layers": 2,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "moe_k": 1,
            "moe_num_shared_experts": 0,
            "moe_layer_start_index": 0,
            "hidden_act": "gelu",
            **rope("linear", 1000.0, factor=2.0),
        },
    ),
}
