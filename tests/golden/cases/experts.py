"""Decoders with experts: name -> case."""

from tests.golden.case import Case
from tests.golden.cases.decoders import LLAMA as THREE
from tests.golden.cases.decoders import rope

LLAMA = {**THREE, "num_hidden_layers": 2}  # one of a kind is enough: the dense families have more

SMALL = {"moe_intermediate_size": 14, "num_experts": 5, "num_experts_per_tok": 3}

GRANITE_MOE = {
    **LLAMA,
    "intermediate_size": 14,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "embedding_multiplier": 3.0,
    "logits_scaling": 0.7,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.3,
}

DBRX = {"vocab_size": 97, "d_model": 24, "n_layers": 2, "n_heads": 4}

PHIMOE = {**LLAMA, "num_local_experts": 5, "intermediate_size": 14, "num_key_value_heads": 6}

JETMOE = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "kv_channels": 10,
    "intermediate_size": 14,
    "num_local_experts": 4,
    "rms_norm_eps": 1e-2,
}

HUNYUAN = {**LLAMA, "head_dim": 8, "intermediate_size": 14, "num_experts": 5, "moe_topk": 3, "pad_token_id": 0}

CASES: dict[str, Case] = {
    "mixtral": Case(
        "MixtralForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 3, **rope("default", 100.0)},
        (
            "model.layers.1.block_sparse_moe.gate.weight",
            "model.layers.1.block_sparse_moe.experts.3.w1.weight",
            "model.layers.1.block_sparse_moe.experts.0.w2.weight",
        ),
    ),
    "mixtral_one": Case(
        "MixtralForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "sliding_window": 7,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            **rope("linear", 1000.0, factor=2.0),
        },
        greedy=False,
    ),
    "qwen2_moe": Case(
        "Qwen2MoeForCausalLM",
        {
            **LLAMA,
            **SMALL,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "shared_expert_intermediate_size": 20,
            "decoder_sparse_step": 2,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 3,
            **rope("default", 100.0),
        },
        (
            "model.layers.1.mlp.gate.weight",
            "model.layers.1.mlp.shared_expert_gate.weight",
            "model.layers.1.mlp.shared_expert.up_proj.weight",
            "model.layers.1.mlp.experts.2.up_proj.weight",
        ),
    ),
    "qwen2_moe_normed": Case(
        "Qwen2MoeForCausalLM",
        {
            **LLAMA,
            **SMALL,
            "num_key_value_heads": 6,
            "shared_expert_intermediate_size": 12,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
            "qkv_bias": False,
            "hidden_act": "relu",
            "tie_word_embeddings": True,
        },
        greedy=False,
    ),
    "qwen3_moe": Case(
        "Qwen3MoeForCausalLM",
        {
            **LLAMA,
            **SMALL,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
            "use_sliding_window": True,
            "sliding_window": 7,
            **rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=16),
        },
    ),
    "qwen3_moe_plain": Case(
        "Qwen3MoeForCausalLM",
        {
            **LLAMA,
            **SMALL,
            "num_experts_per_tok": 1,
            "num_key_value_heads": 3,
            "attention_bias": True,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
        },
        greedy=False,
    ),
    "dbrx": Case(
        "DbrxForCausalLM",
        {
            **DBRX,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.6, "rope_theta": 100.0},
            "ffn_config": {"ffn_hidden_size": 14, "moe_num_experts": 5, "moe_top_k": 3},
            **rope("default", 100.0),
        },
        (
            "transformer.blocks.1.ffn.experts.mlp.v1",
            "transformer.blocks.1.ffn.experts.mlp.w2",
            "transformer.blocks.1.ffn.router.layer.weight",
        ),
    ),
    "dbrx_norm": Case(
        "DbrxForCausalLM",
        {
            **DBRX,
            "attn_config": {"clip_qkv": 8, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 14,
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "ffn_act_fn": {"name": "gelu"},
                "moe_normalize_expert_weights": 2.0,
            },
        },
        greedy=False,
    ),
    "dbrx_unnormed": Case(
        "DbrxForCausalLM",
        {
            **DBRX,
            "attn_config": {"kv_n_heads": 4, "clip_qkv": 1.1, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 14,
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "moe_normalize_expert_weights": None,
            },
        },
        greedy=False,
    ),
    "phimoe": Case(
        "PhimoeForCausalLM",
        {
            **PHIMOE,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "lm_head_bias": True,
            "router_jitter_noise": 0.4,
            "sliding_window": 9,
            **rope("default", 100.0),
        },
        ("model.layers.1.block_sparse_moe.gate.weight", "model.layers.1.block_sparse_moe.experts.3.w1.weight"),
    ),
    "phimoe_long": Case(  # the rows are longer than 18 or not, and grow past it
        "PhimoeForCausalLM",
        {
            **PHIMOE,
            "hidden_act": "gelu",
            "max_position_embeddings": 72,
            **rope(
                "longrope",
                100.0,
                short_factor=[1.0, 1.2],
                long_factor=[1.5, 2.5],
                short_mscale=1.1,
                long_mscale=1.3,
                original_max_position_embeddings=18,
            ),
        },
    ),
    "jetmoe": Case(
        "JetMoeForCausalLM",
        {**JETMOE, "num_experts_per_tok": 3, **rope("default", 100.0)},
        (
            "model.layers.1.self_attention.experts.input_linear.weight",
            "model.layers.1.self_attention.experts.router.layer.weight",
            "model.layers.0.self_attention.experts.bias",
            "model.layers.1.mlp.output_linear.weight",
        ),
    ),
    "jetmoe_one": Case(
        "JetMoeForCausalLM",
        {**JETMOE, "num_experts_per_tok": 1, "activation_function": "gelu", "tie_word_embeddings": False},
        greedy=False,
    ),
    "hunyuan_moe": Case(
        "HunYuanMoEV1ForCausalLM",
        {
            **HUNYUAN,
            "num_key_value_heads": 2,
            "attention_bias": True,
            **rope("dynamic", 100.0, alpha=7.0, factor=1.0),
        },
        ("model.layers.1.mlp.gate.wg.weight", "model.layers.0.mlp.shared_mlp.up_proj.weight"),
    ),
    "hunyuan_moe_tied": Case(
        "HunYuanMoEV1ForCausalLM",
        {**HUNYUAN, "moe_topk": [2, 2], "hidden_act": "gelu", "tie_word_embeddings": True},
        greedy=False,
    ),
    "gpt_oss": Case(
        "GptOssForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 14,
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "sliding_window": 7,
            "swiglu_limit": 0.8,
        },
        (
            "model.layers.1.mlp.router.bias",
            "model.layers.0.self_attn.sinks",
            "model.layers.1.mlp.experts.gate_up_proj",
            "model.layers.1.mlp.experts.down_proj_bias",
        ),
    ),
    "gpt_oss_plain": Case(
        "GptOssForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "intermediate_size": 14,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention"],
            "swiglu_alpha": 1.0,
            "swiglu_limit": 1.5,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **rope("default", 100.0),
        },
        greedy=False,
    ),
    "granite_moe": Case(
        "GraniteMoeForCausalLM",
        {**GRANITE_MOE, "num_key_value_heads": 2, "attention_bias": True, **rope("default", 100.0)},
        ("model.layers.1.block_sparse_moe.input_linear.weight", "model.layers.0.block_sparse_moe.router.layer.weight"),
    ),
    "granite_moe_shared": Case(
        "GraniteMoeSharedForCausalLM",
        {
            **GRANITE_MOE,
            "shared_intermediate_size": 18,
            "num_experts_per_tok": 1,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
        },
        ("model.layers.1.shared_mlp.input_linear.weight",),
        greedy=False,
    ),
    "granite_moe_unshared": Case(
        "GraniteMoeSharedForCausalLM", {**GRANITE_MOE, "num_key_value_heads": 1}, greedy=False
    ),
    "olmoe": Case(
        "OlmoeForCausalLM",
        {
            **LLAMA,
            "intermediate_size": 14,
            "num_key_value_heads": 2,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "clip_qkv": 0.7,
            "attention_bias": True,
            "pad_token_id": 0,
        },
        ("model.layers.1.mlp.gate.weight", "model.layers.0.self_attn.k_norm.weight"),
    ),
    "olmoe_normed": Case(
        "OlmoeForCausalLM",
        {
            **LLAMA,
            "intermediate_size": 14,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            **rope("linear", 100.0, factor=2.0),
        },
        greedy=False,
    ),
}
