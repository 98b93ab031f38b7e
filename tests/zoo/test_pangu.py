"""PanGu-alpha against a transcription of its layers, the query layer on top among them."""

import numpy as np

from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS = 12, 3, 4, 3, 1e-2
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB, "context": 16}


def quick_gelu(x: np.ndarray) -> np.ndarray:
    return x * plain.sigmoid(1.702 * x)


def sub_layers(p: dict, x: np.ndarray, asking: np.ndarray | None) -> np.ndarray:
    """x [S, D], through attention and MLP; `asking` [S, D] are the inputs of other queries than its own."""
    a = p["attention"]
    y = plain.each(lambda t: plain.layer_norm(p["attention_norm"], t, EPS), x)
    q = plain.linear(a["q"], y if asking is None else asking)
    q, k, v = (z.reshape(len(x), HEADS, SIZE) for z in (q, plain.linear(a["k"], y), plain.linear(a["v"], y)))
    x = x + plain.linear(a["o"], plain.attention(q, k, v))
    y = plain.each(lambda t: plain.layer_norm(p["mlp_norm"], t, EPS), x)
    return x + plain.linear(p["mlp"]["down"], quick_gelu(plain.linear(p["mlp"]["up"], y)))


def test_pangu():
    model = build({"family": "pangu", **SHAPE, "eps": EPS})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    embed = p["body"]["embed"]
    x = embed["token"][np.asarray(tokens[0])] + embed["position"]["w"][: toys.LENGTH]
    for i in range(LAYERS - 1):
        x = sub_layers(plain.layer(p, i), x, None)
    last = plain.layer(p, 0, segment=1)
    x = plain.each(lambda t: plain.layer_norm(last["norm"], t, EPS), x)
    x = sub_layers(last, x, last["attention"]["query"]["w"][: toys.LENGTH])
    plain.close(model(params, {"tokens": tokens})[0], x @ embed["token"].T)
