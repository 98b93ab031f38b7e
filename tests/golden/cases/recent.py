"""Decoders since LLaMA: name -> case."""

from tests.golden.case import Case
from tests.golden.cases.decoders import LLAMA, V, rope

PHI = {
    **V,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-2,
}


CASES: dict[str, Case] = {
    "mistral": Case(
        "MistralForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 7, **rope("default", 100.0)},
    ),
    "mistral_full": Case(
        "MistralForCausalLM",
        {**LLAMA, "num_key_value_heads": 6, "sliding_window": None, "tie_word_embeddings": True},
    ),
    "qwen2": Case(
        "Qwen2ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
            **rope("default", 100.0),
        },
    ),
    "qwen3": Case(
        "Qwen3ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "gemma": Case(
        "GemmaForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 10, "hidden_act": "gelu_pytorch_tanh", **rope("default", 1e2)},
    ),
    "gemma2": Case(
        "Gemma2ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 20,
            "sliding_window": 7,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
            **rope("default", 100.0),
        },
    ),
    "gemma2_uncapped": Case(
        "Gemma2ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "query_pre_attn_scalar": 12,
            "sliding_window": 9,
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "gemma3": Case(
        "Gemma3ForCausalLM",
        {
            **LLAMA,
            "num_hidden_layers": 5,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 20,
            "sliding_window": 7,
            "sliding_window_pattern": 3,
            "final_logit_softcapping": 5.0,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
            },
        },
    ),
    "gemma3_both_ways": Case(  # as EmbeddingGemma
        "Gemma3TextModel",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 20,
            "sliding_window": 9,
            "sliding_window_pattern": 2,
            "use_bidirectional_attention": True,
        },
    ),
    "phi": Case(
        "PhiForCausalLM",
        {**PHI, "num_key_value_heads": 2, **rope("default", 100.0, partial_rotary_factor=0.5)},
    ),
    "phi_norms": Case(
        "PhiForCausalLM",
        {**PHI, "qk_layernorm": True, "hidden_act": "relu", **rope("default", 100.0, partial_rotary_factor=1.0)},
    ),
    "phi3": Case(
        "Phi3ForCausalLM",
        {
            **LLAMA,
            "pad_token_id": 0,
            "num_key_value_heads": 2,
            "hidden_size": 48,
            "sliding_window": 9,
            **rope("default", 100.0, partial_rotary_factor=0.75),
        },
    ),
    "phi3_long": Case(
        "Phi3ForCausalLM",
        {
            **LLAMA,
            "pad_token_id": 0,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "tie_word_embeddings": True,
            **rope(
                "longrope",
                100.0,
                short_factor=[1.0, 1.2, 1.4, 1.6],
                long_factor=[1.5, 2.5, 3.5, 5.0],
                partial_rotary_factor=1.0,
            ),
        },
    ),
    "phi3_long_later": Case(  # rows of 17 to 24 tokens grow past 26, each at its own time, and are read anew
        "Phi3ForCausalLM",
        {
            **LLAMA,
            "pad_token_id": 0,
            "num_attention_heads": 3,
            "max_position_embeddings": 104,
            "original_max_position_embeddings": 26,
            **rope("longrope", 100.0, short_factor=[1.0, 1.2, 1.4, 1.6], long_factor=[1.5, 2.5, 3.5, 5.0]),
        },
    ),
    "nemotron": Case(
        "NemotronForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "norm_eps": 1e-2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "attention_bias": True,
            "mlp_bias": True,
            **rope("default", 100.0, partial_rotary_factor=0.5),
        },
    ),
    "glm": Case(
        "GlmForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "pad_token_id": 0,
            **rope("default", 100.0, partial_rotary_factor=0.5),
        },
    ),
    "glm4": Case(
        "Glm4ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "head_dim": 12,
            "attention_bias": False,
            "pad_token_id": 0,
            **rope("default", 100.0, partial_rotary_factor=1.0),
        },
    ),
    "stablelm": Case(
        "StableLmForCausalLM",
        {
            **PHI,
            "num_key_value_heads": 3,
            "hidden_act": "silu",
            "use_qkv_bias": True,
            **rope("default", 100.0, partial_rotary_factor=0.5),
        },
    ),
    "stablelm_12b": Case(
        "StableLmForCausalLM",
        {
            **PHI,
            "num_key_value_heads": 2,
            "hidden_act": "silu",
            "qk_layernorm": True,
            "use_parallel_residual": True,
            **rope("default", 100.0, partial_rotary_factor=0.5),
        },
    ),
    "olmo": Case(
        "OlmoForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "num_key_value_heads": 2,
            "clip_qkv": 0.7,
            "attention_bias": True,
        },
    ),
    "olmo2": Case("Olmo2ForCausalLM", {**LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True}),
}
