"""The goldens' models: small, with unusual values. name -> (class, config, tensors whose gradients are kept)."""

from typing import Any

V = {"vocab_size": 97}
GPT2 = {
    **V,
    "n_positions": 40,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": 40,
    "layer_norm_epsilon": 1e-2,
}
LLAMA = {
    **V,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "rms_norm_eps": 1e-2,
}


NEOX = {
    **V,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-2,
}


def rope(kind: str, theta: float, **knobs: Any) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **knobs}}


# With 16 original positions and these limits, one pair of a head of 8 is kept, one is mixed, two are stretched.
LLAMA3 = {
    "factor": 4.0,
    "low_freq_factor": 0.5,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}

CASES: dict[str, tuple] = {
    "gpt2": (
        "GPT2LMHeadModel",
        GPT2,
        ("transformer.wte.weight", "transformer.h.1.attn.c_attn.weight", "transformer.h.0.ln_1.bias"),
    ),
    "gpt2_scores": (
        "GPT2LMHeadModel",
        {
            **GPT2,
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
            "tie_word_embeddings": False,
        },
    ),
    "llama_linear": (
        "LlamaForCausalLM",
        {**LLAMA, **rope("linear", 1e4, factor=3.0)},
        ("model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.gate_proj.weight", "model.norm.weight"),
    ),
    "llama_gqa_tied": (
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True, **rope("default", 5e5)},
        ("model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight"),
    ),
    "llama_gqa_llama3": (
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, **rope("llama3", 100.0, **LLAMA3)},
        ("model.layers.1.self_attn.o_proj.weight", "model.layers.0.input_layernorm.weight"),
    ),
    "llama_yarn_biases": (
        "LlamaForCausalLM",
        {
            **LLAMA,
            "head_dim": 8,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu",
            **rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=2.0, beta_slow=0.5),
        },
    ),
    "llama_dynamic": (
        "LlamaForCausalLM",
        {**LLAMA, "head_dim": 8, "max_position_embeddings": 20, **rope("dynamic", 100.0, factor=2.0)},
    ),
    "gpt1": (
        "OpenAIGPTLMHeadModel",
        {**V, "n_positions": 40, "n_embd": 24, "n_layer": 3, "n_head": 4, "layer_norm_epsilon": 1e-2},
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {
            **V,
            "hidden_size": 24,
            "num_layers": 5,
            "num_heads": 4,
            "intermediate_size": 40,
            "max_position_embeddings": 40,
            "attention_types": [[["global", "local"], 2], [["local"], 1]],
            "window_size": 7,
            "layer_norm_epsilon": 1e-2,
        },
    ),
    "gptj": (
        "GPTJForCausalLM",
        {
            **V,
            "n_positions": 40,
            "n_embd": 24,
            "n_layer": 3,
            "n_head": 2,
            "n_inner": 40,
            "rotary_dim": 10,
            "layer_norm_epsilon": 1e-2,
        },
    ),
    "codegen": (
        "CodeGenForCausalLM",
        {**V, "n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 8, "rotary_dim": 2, "layer_norm_epsilon": 1e-2},
    ),
    "gpt_neox": (
        "GPTNeoXForCausalLM",
        {
            **NEOX,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            **rope("default", 100.0, partial_rotary_factor=0.75),
        },
    ),
    "gpt_neox_sequential": (
        "GPTNeoXForCausalLM",
        {
            **NEOX,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            **rope("linear", 100.0, factor=2.0, partial_rotary_factor=0.5),
        },
    ),
    "bigcode_multi_query": ("GPTBigCodeForCausalLM", {**GPT2, "multi_query": True}),
    "bigcode_multi_head": (
        "GPTBigCodeForCausalLM",
        {**GPT2, "multi_query": False, "scale_attn_weights": False, "activation_function": "gelu"},
    ),
    "starcoder2": (
        "Starcoder2ForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "num_key_value_heads": 3,
            "sliding_window": 7,
            "norm_epsilon": 1e-2,
            **rope("default", 100.0),
        },
    ),
    "starcoder2_unbiased": (
        "Starcoder2ForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "num_key_value_heads": 1,
            "use_bias": False,
            "tie_word_embeddings": False,
            "norm_epsilon": 1e-2,
        },
    ),
}
