"""Decoders with latent attention: name -> case."""

from tests.golden.case import Case

DENSE = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 40,
    "first_k_dense_replace": 3,
    "kv_lora_rank": 10,
    "q_lora_rank": None,
    "qk_nope_head_dim": 5,
    "qk_rope_head_dim": 8,
    "v_head_dim": 7,
    "rms_norm_eps": 1e-2,
}
DENSE_2 = {**DENSE, "qk_nope_head_dim": 6}  # what is rotated must begin at even places there


def yarn(**knobs: float) -> dict:
    """Some frequencies of 8 rotated elements are kept, some mixed, some stretched."""
    kind = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
    return {"rope_parameters": {**kind, "beta_fast": 2.0, "beta_slow": 0.5, **knobs}}


# The tensors whose gradients are least like those of other attention.
LATENT = tuple(f"model.layers.1.self_attn.{name}.weight" for name in ("kv_a_proj_with_mqa", "kv_b_proj"))
QUERY = tuple(f"model.layers.0.self_attn.{name}.weight" for name in ("q_a_layernorm", "q_b_proj"))

EXPERTS = {
    **DENSE,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "moe_intermediate_size": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "routed_scaling_factor": 1.7,
}
EXPERTS_2 = {**EXPERTS, "qk_nope_head_dim": 6}
ROUTED = tuple(f"model.layers.2.mlp.{name}.weight" for name in ("gate", "experts.5.down_proj", "experts.0.up_proj"))

CASES: dict[str, Case] = {
    "deepseek_v3_experts": Case(
        "DeepseekV3ForCausalLM",
        {**EXPERTS, "n_group": 4, "topk_group": 2, "q_lora_rank": 9},
        (*ROUTED, "model.layers.1.mlp.shared_experts.gate_proj.weight"),
    ),
    "deepseek_v3_plain": Case(  # weights that are not divided by their sum, one group, experts everywhere
        "DeepseekV3ForCausalLM",
        {
            **EXPERTS,
            "num_hidden_layers": 2,
            "first_k_dense_replace": 0,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "num_experts_per_tok": 1,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": False,
            "hidden_act": "gelu",
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_v2_experts": Case(
        "DeepseekV2ForCausalLM",
        {**EXPERTS_2, "num_hidden_layers": 2, "mlp_bias": True, "topk_method": "greedy"},
    ),
    "deepseek_v2_groups": Case(
        "DeepseekV2ForCausalLM",
        {
            **EXPERTS_2,
            "topk_method": "group_limited_greedy",
            "n_routed_experts": 9,
            "n_group": 3,
            "topk_group": 2,
            "num_experts_per_tok": 4,
            "n_shared_experts": 1,
            "q_lora_rank": 9,
            **yarn(mscale=0.7, mscale_all_dim=1.3),
        },
        ROUTED,
    ),
    "deepseek_v3": Case("DeepseekV3ForCausalLM", {**DENSE, "q_lora_rank": 9}, (*LATENT, *QUERY)),
    "deepseek_v3_halves": Case(
        "DeepseekV3ForCausalLM",
        {
            **DENSE,
            "rope_interleave": False,
            "attention_bias": True,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            **yarn(mscale=0.7, mscale_all_dim=1.3),
        },
        (*LATENT, "model.layers.2.self_attn.kv_a_proj_with_mqa.bias"),
    ),
    "deepseek_v3_rows": Case("DeepseekV3ForSequenceClassification", {**DENSE, "num_labels": 3, "pad_token_id": 1}),
    "deepseek_v3_tokens": Case("DeepseekV3ForTokenClassification", {**DENSE, "num_labels": 3}),
    "deepseek_v2": Case("DeepseekV2ForCausalLM", {**DENSE_2, "mlp_bias": True}, LATENT),
    "deepseek_v2_yarn": Case(
        "DeepseekV2ForCausalLM",
        {**DENSE_2, "q_lora_rank": 9, "attention_bias": True, **yarn(mscale_all_dim=0.7)},
        (*LATENT, *QUERY),
    ),
    "deepseek_v2_rows": Case("DeepseekV2ForSequenceClassification", {**DENSE_2, "num_labels": 3, "pad_token_id": 1}),
}
