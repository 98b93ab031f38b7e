"""Grok-1 against a transcription of its published definitions, from the tensors of a file."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.zoo.registry import build
from tests.golden.weights import tensors
from tests.zoo import plain

EPS, THETA = 1e-2, 50.0
CONFIG = {
    "model_type": "grok-1",
    "architectures": ["Grok1ModelForCausalLM"],
    "vocab_size": 31,
    "hidden_size": 12,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "attn_output_multiplier": 3.0,
    "max_attn_value": 2.0,
    "embedding_multiplier_scale": 5.0,
    "output_multiplier_scale": 0.25,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "tie_word_embeddings": True,
}


def expected(config: dict, file: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """tokens [S] -> logits [S, vocab]"""
    file = {name: np.asarray(x, np.float64) for name, x in file.items()}
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ file[f"{name}.weight"].T

    def norm(name: str, xs: np.ndarray) -> np.ndarray:
        return plain.each(lambda x: plain.rms_norm({"w": file[f"{name}.scale"]}, x, EPS), xs)

    def heads_of(name: str, x: np.ndarray, turned: bool) -> np.ndarray:
        y = linear(name, x).reshape(len(x), -1, size)
        return np.stack([[plain.rotated(h, t, THETA) for h in y[t]] for t in range(len(y))]) if turned else y

    def attention(name: str, x: np.ndarray) -> np.ndarray:
        q, k, v = (heads_of(f"{name}.{part}_proj", x, part != "v") for part in "qkv")
        read = np.zeros((len(x), heads, size))
        for i in range(len(x)):
            for h in range(heads):
                g = h * kv // heads
                scores = np.array([q[i, h] @ k[j, g] for j in range(i + 1)]) * config["attn_output_multiplier"]
                scores = config["max_attn_value"] * np.tanh(scores / config["max_attn_value"])
                read[i, h] = plain.softmax(scores) @ v[: i + 1, g]
        return linear(f"{name}.o_proj", read.reshape(len(x), -1))

    def mixture(name: str, x: np.ndarray) -> np.ndarray:
        probs = plain.softmax(linear(f"{name}.gate", x))
        y = np.zeros_like(x)
        for e in plain.highest(probs, config["num_experts_per_tok"]):
            at = f"{name}.experts.{e}"
            y += probs[e] * linear(
                f"{at}.linear_1", plain.gelu_tanh(linear(f"{at}.linear", x)) * linear(f"{at}.linear_v", x)
            )
        return y

    x = config["embedding_multiplier_scale"] * file["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        x = x + norm(f"{at}.post_attn_norm", attention(f"{at}.attn", norm(f"{at}.pre_attn_norm", x)))
        y = plain.each(lambda t, at=at: mixture(f"{at}.moe_block", t), norm(f"{at}.pre_moe_norm", x))
        x = x + norm(f"{at}.post_moe_norm", y)
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return config["output_multiplier_scale"] * linear(head, norm("model.norm", x))


@pytest.mark.parametrize(
    "changes", [{}, {"num_experts_per_tok": 1, "num_key_value_heads": 3, "tie_word_embeddings": False}]
)
def test_grok(changes):
    config = {**CONFIG, **changes}
    described = read_config(config)
    model, tokens = build(described.knobs), np.random.default_rng(0).integers(0, 31, 7)
    binding = Binding(model, described.spelling.names)
    file = tensors({links[0].name: links[0].shape for links in binding._names.values()})
    plain.close(model(binding.to_params(file), {"tokens": tokens[None]})[0], expected(config, file, tokens))
    again = binding.to_tensors(binding.to_params(file))
    assert again.keys() == file.keys() and all(np.array_equal(again[name], file[name]) for name in file)
    assert build(read_config(write_config("grok-1", described.knobs)).knobs) == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok=6 exceeds num_experts=5"),
        ({"embedding_multiplier_scale": None}, "embedding_multiplier_scale=None is not understood"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        read_config({**CONFIG, **changes})
