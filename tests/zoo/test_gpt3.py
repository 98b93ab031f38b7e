"""GPT-3 against a transcription: dense and sparse layers by turns."""

import numpy as np
import pytest

from lm.model.masks import Strided, Window
from lm.zoo.gpt3 import gpt3
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS = 12, 3, 4, 5, 1e-2
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB, "context": 16, "eps": EPS}
SEES = {
    None: lambda i, j: j <= i,
    Strided(3): lambda i, j: j <= i and (i - j < 3 or (i - j) % 3 == 0),
    Window(3): lambda i, j: i - 3 < j <= i,
}


def sub_layers(p: dict, x: np.ndarray, sees) -> np.ndarray:
    """x [S, D], through attention and MLP."""
    a = p["attention"]
    y = plain.each(lambda t: plain.layer_norm(p["attention_norm"], t, EPS), x)
    q, k, v = (plain.linear(a[n], y).reshape(len(y), HEADS, SIZE) for n in "qkv")
    x = x + plain.linear(a["o"], plain.attention(q, k, v, sees))
    y = plain.each(lambda t: plain.layer_norm(p["mlp_norm"], t, EPS), x)
    return x + plain.linear(p["mlp"]["down"], plain.gelu_tanh(plain.linear(p["mlp"]["up"], y)))


@pytest.mark.parametrize("sparse", SEES, ids=str)
def test_gpt3(sparse):
    model = gpt3(**SHAPE, sparse=sparse)
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    embed = p["body"]["embed"]
    x = embed["token"][np.asarray(tokens[0])] + embed["position"]["w"][: toys.LENGTH]
    for i in range(LAYERS):
        place = model.body.stack.locate(i)
        layer = plain.layer(p, place.repeat, place.segment, place.position)
        x = sub_layers(layer, x, SEES[sparse if i % 2 else None])
    x = plain.each(lambda t: plain.layer_norm(p["body"]["stack"]["norm"], t, EPS), x)
    plain.close(model(params, {"tokens": tokens})[0], x @ embed["token"].T)


def test_the_sparse_mask_is_a_knob():
    knobs = {"family": "gpt3", **SHAPE, "sparse": {"type": "Strided", "stride": 3}}
    assert build(knobs) == gpt3(**SHAPE, sparse=Strided(3)) != gpt3(**SHAPE)
