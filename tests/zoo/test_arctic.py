"""Arctic against a transcription of its layers, from the tensors of a file."""

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.hub.binding import Binding
from lm.hub.config import read_config, write_config
from lm.zoo.registry import build
from tests import toys
from tests.golden.weights import tensors
from tests.zoo import plain

CONFIG = {
    "model_type": "arctic",
    "architectures": ["ArcticForCausalLM"],
    "vocab_size": 31,
    "hidden_size": 12,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "moe_layer_frequency": 1,
    "parallel_attn_mlp_res": True,
    "rms_norm_eps": 1e-2,
    "rope_theta": 50.0,
}


def expected(config: dict, file: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """tokens [S] -> logits [S, vocab]"""
    file = {name: np.asarray(x, np.float64) for name, x in file.items()}
    size = config["hidden_size"] // config["num_attention_heads"]
    window = config.get("sliding_window") or len(tokens)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ file[f"{name}.weight"].T

    def norm(name: str, xs: np.ndarray) -> np.ndarray:
        return plain.each(lambda x: plain.rms_norm({"w": file[f"{name}.weight"]}, x, config["rms_norm_eps"]), xs)

    def mlp(name: str, x: np.ndarray) -> np.ndarray:
        return linear(f"{name}.w2", plain.silu(linear(f"{name}.w1", x)) * linear(f"{name}.w3", x))

    def mixture(name: str, x: np.ndarray) -> np.ndarray:
        probs = plain.softmax(linear(f"{name}.gate", x))
        chosen = plain.highest(probs, config["num_experts_per_tok"])
        return sum(probs[e] / probs[chosen].sum() * mlp(f"{name}.experts.{e}", x) for e in chosen)

    x = file["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        y = norm(f"{at}.input_layernorm", x)
        q, k, v = (linear(f"{at}.self_attn.{n}_proj", y).reshape(len(y), -1, size) for n in "qkv")
        q, k = (
            np.stack([[plain.rotated(h, t, config["rope_theta"]) for h in z[t]] for t in range(len(z))]) for z in (q, k)
        )
        h = x + linear(f"{at}.self_attn.o_proj", plain.attention(q, k, v, lambda i, j: i - window < j <= i))
        sparse = (i + 1) % config["moe_layer_frequency"] == 0
        if sparse and config["parallel_attn_mlp_res"]:  # experts read what the attention read
            before = norm(f"{at}.post_attention_layernorm", x)
            beside = plain.each(lambda t, at=at: mixture(f"{at}.block_sparse_moe", t), before)
            x = h + mlp(f"{at}.residual_mlp", norm(f"{at}.residual_layernorm", h)) + beside
        else:
            y = norm(f"{at}.post_attention_layernorm", h)
            of = (mixture, "block_sparse_moe") if sparse else (mlp, "block_sparse_moe.mlp")
            x = h + plain.each(lambda t, at=at, of=of: of[0](f"{at}.{of[1]}", t), y)
    head = "model.embed_tokens" if config.get("tie_word_embeddings") else "lm_head"
    return linear(head, norm("model.norm", x))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"moe_layer_frequency": 2, "num_experts_per_tok": 1, "num_key_value_heads": 3, "sliding_window": 3},
        {"moe_layer_frequency": 2, "parallel_attn_mlp_res": False, "tie_word_embeddings": True},
    ],
)
def test_arctic(changes):
    config = {**CONFIG, **changes}
    described = read_config(config)
    model, tokens = build(described.knobs), np.random.default_rng(0).integers(0, 31, 7)
    binding = Binding(model, described.spelling.names)
    file = tensors({links[0].name: links[0].shape for links in binding._names.values()})
    plain.close(model(binding.to_params(file), {"tokens": tokens[None]})[0], expected(config, file, tokens))
    again = binding.to_tensors(binding.to_params(file))
    assert again.keys() == file.keys() and all(np.array_equal(again[name], file[name]) for name in file)
    assert build(read_config(write_config("arctic", described.knobs)).knobs) == model


def test_decoding_and_statistics():
    """Experts beside a layer count their choices, and text read in pieces gives what it gives at once."""
    model = build({**read_config(CONFIG).knobs, "layers": 1})
    params, tokens = toys.values(model.spec()), np.random.default_rng(1).integers(0, 31, (1, 5))
    whole, _, aux = toys.forward(model, params, {"tokens": tokens})
    assert aux["0"]["0"]["branch"]["router"].load.sum() == 5 * 2
    cache, pieces = model.cache(toys.shape(1)), []
    for start, end in ((0, 3), (3, 5)):
        batch = {"tokens": tokens[:, start:end], "positions": np.arange(start, end)[None]}
        logits, cache, _ = toys.forward(model, params, batch, cache=cache)
        pieces.append(logits)
    plain.close(np.concatenate(pieces, axis=1), np.asarray(whole))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok=6 exceeds num_local_experts=5"),
        ({"quantization": {"q_bits": 8}}, "quantization=.* is not supported"),
        ({"moe_layer_frequency": 0}, "moe_layer_frequency=0"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        read_config({**CONFIG, **changes})
