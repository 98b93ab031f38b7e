"""DeepSeekMoE against a transcription of the paper's equations, from the tensors of a file."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.zoo.registry import build
from tests.golden.weights import tensors
from tests.zoo import plain

CONFIG = {
    "model_type": "deepseek",
    "architectures": ["DeepseekForCausalLM"],
    "vocab_size": 31,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "n_routed_experts": 5,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": False,
    "rms_norm_eps": 1e-2,
    "rope_theta": 50.0,
}


def expected(config: dict, file: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """tokens [S] -> logits [S, vocab]"""
    file = {name: np.asarray(x, np.float64) for name, x in file.items()}
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ file[f"{name}.weight"].T + file.get(f"{name}.bias", 0.0)

    def norm(name: str, xs: np.ndarray) -> np.ndarray:
        return plain.each(lambda x: plain.rms_norm({"w": file[f"{name}.weight"]}, x, config["rms_norm_eps"]), xs)

    def mlp(name: str, x: np.ndarray) -> np.ndarray:
        return linear(f"{name}.down_proj", plain.silu(linear(f"{name}.gate_proj", x)) * linear(f"{name}.up_proj", x))

    def mixture(name: str, x: np.ndarray) -> np.ndarray:
        probs = plain.softmax(linear(f"{name}.gate", x))
        chosen = plain.highest(probs, config["num_experts_per_tok"])
        whole = sum(probs[e] for e in chosen) if config["norm_topk_prob"] and len(chosen) > 1 else 1.0
        each = [probs[e] / whole * mlp(f"{name}.experts.{e}", x) for e in chosen]
        return sum(each) + (mlp(f"{name}.shared_experts", x) if config["n_shared_experts"] else 0)

    x = file["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        y = norm(f"{at}.input_layernorm", x)
        q, k, v = (
            linear(f"{at}.self_attn.{n}_proj", y).reshape(len(y), -1, config["hidden_size"] // heads) for n in "qkv"
        )
        q, k = (
            np.stack([[plain.rotated(h, t, config["rope_theta"]) for h in z[t]] for t in range(len(z))]) for z in (q, k)
        )
        assert k.shape[1] == kv
        x = x + linear(f"{at}.self_attn.o_proj", plain.attention(q, k, v))
        y = norm(f"{at}.post_attention_layernorm", x)
        sparse = i >= config["first_k_dense_replace"] and i % config["moe_layer_freq"] == 0
        x = x + plain.each(lambda t, at=at, f=mixture if sparse else mlp: f(f"{at}.mlp", t), y)
    return linear("lm_head", norm("model.norm", x))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_topk_prob": True, "n_shared_experts": None, "num_key_value_heads": 1, "attention_bias": True},
        {"norm_topk_prob": True, "num_experts_per_tok": 1, "first_k_dense_replace": 0, "moe_layer_freq": 2},
    ],
)
def test_deepseek_moe(changes):
    config = {**CONFIG, **changes}
    described = read_config(config)
    model, tokens = build(described.knobs), np.random.default_rng(0).integers(0, 31, 9)
    binding = Binding(model, described.spelling.names)
    file = tensors({link.name: link.shape for link in binding.links.values()})
    plain.close(model(binding.to_params(file), {"tokens": tokens[None]})[0], expected(config, file, tokens))
    again = binding.to_tensors(binding.to_params(file))
    assert again.keys() == file.keys() and all(np.array_equal(again[name], file[name]) for name in file)
    written = write_config("deepseek", described.knobs)
    assert build(read_config(written).knobs) == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok=6 exceeds n_routed_experts=5"),
        ({"scoring_func": "sigmoid"}, "scoring_func='sigmoid' is not supported"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        read_config({**CONFIG, **changes})


def test_a_file_of_more_experts():
    described = read_config(CONFIG)
    binding = Binding(build(described.knobs), described.spelling.names)
    file = tensors({link.name: link.shape for link in binding.links.values()})
    more = "model.layers.1.mlp.experts.5.down_proj.weight"
    with pytest.raises(UserError, match=f"tensor '{more}' is unknown to this model"):
        binding.to_params(file | {more: file["model.layers.1.mlp.experts.4.down_proj.weight"]})
