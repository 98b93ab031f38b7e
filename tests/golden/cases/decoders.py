"""Decoders: name -> case."""

from typing import Any

from tests.golden.case import Case

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


OPT = {
    **V,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 40,
    "word_embed_proj_dim": 24,
}
FALCON = {**V, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "layer_norm_epsilon": 1e-2}


def rope(kind: str, theta: float, **knobs: Any) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **knobs}}


# With 16 original positions and these limits, one pair of a head of 8 is kept, one is mixed, two are stretched.
LLAMA3 = {
    "factor": 4.0,
    "low_freq_factor": 0.5,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}

CASES: dict[str, Case] = {
    "gpt2": Case(
        "GPT2LMHeadModel",
        GPT2,
        ("transformer.wte.weight", "transformer.h.1.attn.c_attn.weight", "transformer.h.0.ln_1.bias"),
    ),
    "gpt2_scores": Case(
        "GPT2LMHeadModel",
        {
            **GPT2,
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
            "tie_word_embeddings": False,
        },
    ),
    "llama_linear": Case(
        "LlamaForCausalLM",
        {**LLAMA, **rope("linear", 1e4, factor=3.0)},
        ("model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.gate_proj.weight", "model.norm.weight"),
    ),
    "llama_gqa_tied": Case(
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True, **rope("default", 5e5)},
        ("model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight"),
    ),
    "llama_gqa_llama3": Case(
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, **rope("llama3", 100.0, **LLAMA3)},
        ("model.layers.1.self_attn.o_proj.weight", "model.layers.0.input_layernorm.weight"),
    ),
    "llama_yarn_biases": Case(
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
    "llama_dynamic": Case(
        "LlamaForCausalLM",
        {**LLAMA, "head_dim": 8, "max_position_embeddings": 20, **rope("dynamic", 100.0, factor=2.0)},
    ),
    # Rows of 17 to 24 tokens grow past these lengths, each at its own time; what is cached stays.
    "llama_dynamic_later": Case(
        "LlamaForCausalLM",
        {**LLAMA, "head_dim": 8, "max_position_embeddings": 26, **rope("dynamic", 100.0, factor=4.0)},
    ),
    "llama_long": Case(
        "LlamaForCausalLM",
        {
            **LLAMA,
            "head_dim": 8,
            "max_position_embeddings": 104,
            **rope(
                "longrope",
                100.0,
                factor=4.0,
                original_max_position_embeddings=26,
                short_factor=[1.0, 1.2, 1.4, 1.6],
                long_factor=[1.5, 2.5, 3.5, 5.0],
            ),
        },
    ),
    "gpt1": Case(
        "OpenAIGPTLMHeadModel",
        {**V, "n_positions": 40, "n_embd": 24, "n_layer": 3, "n_head": 4, "layer_norm_epsilon": 1e-2},
    ),
    "gpt_neo": Case(
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
    "gptj": Case(
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
    "codegen": Case(
        "CodeGenForCausalLM",
        {**V, "n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 8, "rotary_dim": 2, "layer_norm_epsilon": 1e-2},
    ),
    "gpt_neox": Case(
        "GPTNeoXForCausalLM",
        {
            **NEOX,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            **rope("default", 100.0, partial_rotary_factor=0.75),
        },
    ),
    "gpt_neox_sequential": Case(
        "GPTNeoXForCausalLM",
        {
            **NEOX,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            **rope("linear", 100.0, factor=2.0, partial_rotary_factor=0.5),
        },
    ),
    "bigcode_multi_query": Case("GPTBigCodeForCausalLM", {**GPT2, "multi_query": True}),
    "bigcode_multi_head": Case(
        "GPTBigCodeForCausalLM",
        {**GPT2, "multi_query": False, "scale_attn_weights": False, "activation_function": "gelu"},
    ),
    "starcoder2": Case(
        "Starcoder2ForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "num_key_value_heads": 3,
            "sliding_window": 7,
            "norm_epsilon": 1e-2,
            **rope("default", 100.0),
        },
    ),
    "starcoder2_unbiased": Case(
        "Starcoder2ForCausalLM",
        {
            **{k: v for k, v in LLAMA.items() if k != "rms_norm_eps"},
            "num_key_value_heads": 1,
            "use_bias": False,
            "tie_word_embeddings": False,
            "norm_epsilon": 1e-2,
        },
    ),
    "opt": Case("OPTForCausalLM", {**OPT, "activation_function": "gelu"}),
    "opt_post_norm": Case(
        "OPTForCausalLM",
        {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16},
    ),
    "galactica": Case(
        "OPTForCausalLM",
        {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False},
    ),
    "bloom": Case(
        "BloomForCausalLM",
        {**V, "hidden_size": 24, "n_layer": 3, "n_head": 6, "layer_norm_epsilon": 1e-2},
    ),
    "bloom_residual": Case(
        "BloomForCausalLM",
        {
            **V,
            "hidden_size": 24,
            "n_layer": 3,
            "n_head": 4,
            "layer_norm_epsilon": 1e-2,
            "apply_residual_connection_post_layernorm": True,
            "tie_word_embeddings": False,
        },
    ),
    "falcon_7b": Case("FalconForCausalLM", {**FALCON, "ffn_hidden_size": 40, **rope("default", 100.0)}),
    "falcon_40b": Case(
        "FalconForCausalLM",
        {
            **FALCON,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "bias": True,
            **rope("linear", 1e2, factor=2.0),
        },
    ),
    "falcon_11b": Case(
        "FalconForCausalLM",
        {
            **FALCON,
            "new_decoder_architecture": True,
            "num_kv_heads": 3,
            "num_ln_in_parallel_attn": 1,
            "activation": "relu",
            "tie_word_embeddings": False,
        },
    ),
    "falcon_rw": Case(
        "FalconForCausalLM",
        {**FALCON, "alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
        (),
        "sdpa",  # its eager form adds the biases twice: to the mask and to the scores
    ),
    "mpt": Case(
        "MptForCausalLM",
        {
            **V,
            "d_model": 24,
            "n_layers": 3,
            "n_heads": 6,
            "layer_norm_epsilon": 1e-2,
            "max_seq_len": 64,
            "attn_config": {"clip_qkv": 0.7, "softmax_scale": 0.6},
        },
    ),
}
