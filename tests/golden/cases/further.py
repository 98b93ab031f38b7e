"""More decoders: name -> case."""

from tests.golden.case import Case
from tests.golden.cases.decoders import LLAMA, NEOX, V, rope

COHERE = {k: v for k, v in LLAMA.items() if k != "rms_norm_eps"} | {"layer_norm_eps": 1e-2}
WINDOW, FULL = "sliding_attention", "full_attention"
XGLM = {
    **V,
    "d_model": 24,
    "num_layers": 3,
    "attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 40,
}

CASES: dict[str, Case] = {
    "granite": Case(
        "GraniteForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.4,
            "tie_word_embeddings": True,
            **rope("default", 100.0),
        },
        ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight"),
    ),
    "granite_biases": Case(  # multipliers of 1, of attention's scores too
        "GraniteForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "attention_bias": True,
            "mlp_bias": True,
            **rope("linear", 1e4, factor=3.0),
        },
    ),
    "cohere": Case(
        "CohereForCausalLM",
        {**COHERE, "num_key_value_heads": 2, "use_qk_norm": True, "logit_scale": 0.3, **rope("default", 100.0)},
        ("model.layers.0.self_attn.k_norm.weight", "model.layers.1.input_layernorm.weight"),
    ),
    "cohere_untied": Case(
        "CohereForCausalLM",
        {**COHERE, "attention_bias": True, "logit_scale": 1.5, "tie_word_embeddings": False},
    ),
    "cohere2": Case(
        "Cohere2ForCausalLM",
        {
            **COHERE,
            "num_hidden_layers": 5,
            "num_key_value_heads": 3,
            "sliding_window": 7,
            "logit_scale": 0.3,
            **rope("default", 100.0),
        },
        ("model.layers.3.self_attn.k_proj.weight",),
    ),
    "cohere2_untied": Case(
        "Cohere2ForCausalLM",
        {
            **COHERE,
            "sliding_window": 5,
            "layer_types": [FULL, WINDOW, FULL],
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "olmo3": Case(
        "Olmo3ForCausalLM",
        {
            **LLAMA,
            "num_hidden_layers": 5,
            "num_key_value_heads": 2,
            "sliding_window": 7,
            "tie_word_embeddings": True,
            "rope_parameters": {
                WINDOW: {"rope_type": "default", "rope_theta": 50.0},
                FULL: {
                    "rope_type": "yarn",
                    "rope_theta": 100.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 16,
                    "attention_factor": 1.3,
                    "beta_fast": 2.0,
                    "beta_slow": 0.5,
                },
            },
        },
        ("model.layers.3.self_attn.q_norm.weight",),
    ),
    "smollm3": Case(
        "SmolLM3ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "no_rope_layer_interval": 2,
            "mlp_bias": True,
            **rope("default", 100.0),
        },
    ),
    "smollm3_windows": Case(
        "SmolLM3ForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 3,
            "pad_token_id": 0,
            "no_rope_layers": [0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": 7,
            "layer_types": [FULL, WINDOW, WINDOW],
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "ernie4_5": Case("Ernie4_5ForCausalLM", {**LLAMA, "head_dim": 8, "use_bias": True, **rope("default", 100.0)}),
    "ernie4_5_untied": Case(
        "Ernie4_5ForCausalLM", {**LLAMA, "num_key_value_heads": 3, "head_dim": 10, "tie_word_embeddings": False}
    ),
    "persimmon": Case(
        "PersimmonForCausalLM",
        {**NEOX, **rope("default", 100.0, partial_rotary_factor=0.5)},
        ("model.layers.1.self_attn.query_key_value.weight", "model.layers.0.self_attn.q_layernorm.bias"),
    ),
    "persimmon_unnormed": Case(
        "PersimmonForCausalLM",
        {
            **NEOX,
            "qk_layernorm": False,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            **rope("default", 100.0, partial_rotary_factor=0.75),
        },
    ),
    "xglm": Case("XGLMForCausalLM", XGLM, ("model.embed_tokens.weight", "model.layers.0.fc1.bias")),
    "xglm_unscaled": Case(
        "XGLMForCausalLM",
        {**XGLM, "scale_embedding": False, "activation_function": "relu", "tie_word_embeddings": False},
    ),
}
