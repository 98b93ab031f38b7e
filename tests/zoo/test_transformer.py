"""The Transformer and AlphaCode against a transcription of the papers' equations, token by token."""

import math

import jax
import numpy as np
import pytest

from lm.model.layers import LayerNorm
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, READ, EPS = 12, 3, 7, 1e-2
SHAPE = {"layers": 2, "decoder_layers": 3, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB}


def layer(tower: dict, i: int) -> dict:
    return jax.tree.map(lambda w: w[i], tower["stack"]["0"]["0"])


def embedded(table: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """sqrt(d) E[token] + PE(position), section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) its cosine."""
    x = math.sqrt(D) * table[tokens]
    for position in range(len(tokens)):
        for i in range(D // 2):
            angle = position / 10000 ** (2 * i / D)
            x[position, 2 * i] += math.sin(angle)
            x[position, 2 * i + 1] += math.cos(angle)
    return x


def behind(i: int, j: int) -> bool:
    return j <= i


def everything(i: int, j: int) -> bool:
    return True


def read(p: dict, x: np.ndarray, memory: np.ndarray, sees) -> np.ndarray:
    inputs = {"q": x, "k": memory, "v": memory}
    q, k, v = (plain.linear(p[n], y).reshape(len(y), -1, D // HEADS) for n, y in inputs.items())
    return plain.linear(p["o"], plain.attention(q, k, v, sees))


def expected(params: dict, source: np.ndarray, target: np.ndarray, activation, norm_first: bool) -> np.ndarray:
    """source [S], target [T] -> logits [T, vocab]"""
    params = plain.numpy(params)

    def norm(p: dict, x: np.ndarray) -> np.ndarray:
        return plain.each(lambda t: plain.layer_norm(p, t, EPS), x)

    def sub_layer(p: dict, name: str, x: np.ndarray, function) -> np.ndarray:
        gain = p[f"{name}_norm"]
        return x + function(p[name], norm(gain, x)) if norm_first else norm(gain, x + function(p[name], x))

    def feed_forward(p: dict, x: np.ndarray) -> np.ndarray:
        return plain.linear(p["down"], activation(plain.linear(p["up"], x)))

    own = params["decoder"]["embed"]["token"]
    memory = embedded(params["encoder"].get("embed", {}).get("token", own), source)
    for i in range(SHAPE["layers"]):
        p = layer(params["encoder"], i)
        memory = sub_layer(p, "attention", memory, lambda p, x: read(p, x, x, everything))
        memory = sub_layer(p, "mlp", memory, feed_forward)
    if norm_first:
        memory = norm(params["encoder"]["stack"]["norm"], memory)
    x = embedded(own, target)
    for i in range(SHAPE["decoder_layers"]):
        p = layer(params["decoder"], i)
        x = sub_layer(p, "attention", x, lambda p, x: read(p, x, x, behind))
        x = sub_layer(p, "cross", x, lambda p, x: read(p, x, memory, everything))
        x = sub_layer(p, "mlp", x, feed_forward)
    if norm_first:
        x = norm(params["decoder"]["stack"]["norm"], x)
    return x @ own.T


@pytest.mark.parametrize(
    ("family", "activation", "norm_first", "knobs"),
    [
        ("transformer", lambda x: np.maximum(x, 0), False, {}),
        ("alphacode", plain.gelu, True, {"kv": 1}),
    ],
)
def test_against_the_paper(family, activation, norm_first, knobs):
    model = build({"family": family, **SHAPE, **knobs, "norm": LayerNorm(EPS)})
    params = toys.values(model.spec())
    target, source = toys.tokens(1), toys.tokens(1, READ, seed=1)
    logits = model(params, {"tokens": target, "encoder/tokens": source})[0]
    plain.close(logits, expected(params, np.asarray(source[0]), np.asarray(target[0]), activation, norm_first))


def test_one_head_of_keys_and_values_serves_all():
    spec = build({"family": "alphacode", **SHAPE, "kv": 1}).spec()
    assert spec["decoder"]["stack"]["0"]["0"]["cross"]["k"]["w"].shape == (3, D, D // HEADS)
    assert spec["encoder"]["embed"]["token"].shape == spec["decoder"]["embed"]["token"].shape == (toys.VOCAB, D)
