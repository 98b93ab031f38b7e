"""What architectures of GGUF files are called in a Hugging Face folder: fields of config.json, and tensors."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Values = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """fields: their key -> that of config.json. names: their tensor -> that of a Hugging Face folder, `{layer}` the
    layer's number. needed: keys without which llama.cpp opens no such file. pairs: the rows of queries and keys are
    ordered for interleaved rotation, not by halves; values: what else undoes the conversion, by the end of a tensor's
    name. biases: tensor of the first layer -> the field that says that there are such."""

    model_type: str
    fields: Mapping[str, str]
    names: Mapping[str, str]
    needed: tuple[str, ...]
    pairs: bool = False
    values: tuple[tuple[str, Values], ...] = ()
    biases: tuple[tuple[str, str], ...] = ()


SHAPE = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
GPT2 = {
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
SIZES = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length")
FRACTIONS = ("epsilon", "freq_base", "factor", "_linear", "beta_fast", "beta_slow")  # ends of keys of any numbers
LAYER, THERE = "blk.{layer}.", "model.layers.{layer}."
ROTARY = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    LAYER + "attn_norm": THERE + "input_layernorm",
    LAYER + "attn_q": THERE + "self_attn.q_proj",
    LAYER + "attn_k": THERE + "self_attn.k_proj",
    LAYER + "attn_v": THERE + "self_attn.v_proj",
    LAYER + "attn_output": THERE + "self_attn.o_proj",
    LAYER + "attn_q_norm": THERE + "self_attn.q_norm",
    LAYER + "attn_k_norm": THERE + "self_attn.k_norm",
    LAYER + "ffn_norm": THERE + "post_attention_layernorm",
    LAYER + "ffn_gate": THERE + "mlp.gate_proj",
    LAYER + "ffn_up": THERE + "mlp.up_proj",
    LAYER + "ffn_down": THERE + "mlp.down_proj",
}
H = "transformer.h.{layer}."
FUSED = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    LAYER + "attn_norm": H + "ln_1",
    LAYER + "attn_qkv": H + "attn.c_attn",
    LAYER + "attn_output": H + "attn.c_proj",
    LAYER + "ffn_norm": H + "ln_2",
    LAYER + "ffn_up": H + "mlp.c_fc",
    LAYER + "ffn_down": H + "mlp.c_proj",
}
TURNED = tuple((f"{x}.weight", np.transpose) for x in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
RMS = (*SIZES, "attention.layer_norm_rms_epsilon")
ATTENTION_BIAS = ("blk.0.attn_q.bias", "attention_bias")
ARCHITECTURES = {
    "llama": Architecture(
        "llama", SHAPE, ROTARY, RMS, pairs=True, biases=(ATTENTION_BIAS, ("blk.0.ffn_up.bias", "mlp_bias"))
    ),
    "qwen2": Architecture("qwen2", SHAPE, ROTARY, RMS),
    "qwen3": Architecture("qwen3", SHAPE, ROTARY, RMS, biases=(ATTENTION_BIAS,)),
    "gemma": Architecture("gemma", SHAPE, ROTARY, RMS, values=(("norm.weight", lambda w: w - 1),)),  # 1 + w
    "gpt2": Architecture("gpt2", GPT2, FUSED, (*SIZES, "attention.layer_norm_epsilon"), values=TURNED),
}

WIDTHS = ("rope.dimension_count", "attention.key_length", "attention.value_length")  # of heads: all the same
# Keys of an architecture that describe the file, not what is computed.
TOLD = ("vocab_size", "tensor_data_layout", "pooling_type", "rope.scaling.finetuned")
# What other keys hold where they change nothing. A zero switches off whatever else there is: a count, a size, a scale,
# a cap; of a model without experts nothing that is said of them matters.
SWITCHED_OFF = (0, False, "", "none")
NEUTRAL: Mapping[str, Any] = {
    "attention.causal": True,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "attention.output_scale": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
}


def says_nothing(name: str, value: Any, own: Mapping[str, Any], width: int) -> bool:
    """Whether a key of an architecture, without its name, changes nothing beside the others, `own`, in heads of that
    width."""
    if name in TOLD or (name in NEUTRAL and value == NEUTRAL[name]):
        return True
    if name.startswith("expert") and own.get("expert_count", 0) == 0:
        return True
    usual = {"attention.scale": width**-0.5, "embedding_length_out": own["embedding_length"]}
    usual |= dict.fromkeys(WIDTHS, width)
    if name in usual and isinstance(value, int | float):
        return value == 0 or math.isclose(value, usual[name], rel_tol=1e-6)
    if name == "attention.sliding_window" and isinstance(value, int):
        return value == 0 or value >= own.get("context_length", value + 1)
    return name != "attention.causal" and value in SWITCHED_OFF
