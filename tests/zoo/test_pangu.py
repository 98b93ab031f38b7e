"""PanGu-alpha and -Sigma against a transcription of their layers, the query layer on top among them."""

import jax
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.model.moe.hash import Hash
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS = 12, 3, 4, 3, 1e-2
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB, "context": 16}


def quick_gelu(x: np.ndarray) -> np.ndarray:
    return x * plain.sigmoid(1.702 * x)


def feed_forward(p: dict, x: np.ndarray) -> np.ndarray:
    return plain.linear(p["down"], quick_gelu(plain.linear(p["up"], x)))


def sub_layers(p: dict, x: np.ndarray, asking: np.ndarray | None, experts: list[int] | None = None) -> np.ndarray:
    """x [S, D], through attention and MLP; `asking` [S, D] are the inputs of other queries than its own, `experts` [S]
    the experts that tokens go to."""
    a = p["attention"]
    y = plain.each(lambda t: plain.layer_norm(p["attention_norm"], t, EPS), x)
    q = plain.linear(a["q"], y if asking is None else asking)
    q, k, v = (z.reshape(len(x), HEADS, SIZE) for z in (q, plain.linear(a["k"], y), plain.linear(a["v"], y)))
    x = x + plain.linear(a["o"], plain.attention(q, k, v))
    y = plain.each(lambda t: plain.layer_norm(p["mlp_norm"], t, EPS), x)
    if experts is None:
        return x + feed_forward(p["mlp"], y)
    of = [jax.tree.map(lambda w, e=e: w[e], p["mlp"]["experts"]) for e in experts]
    return x + np.stack([feed_forward(expert, t) for expert, t in zip(of, y, strict=True)])


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


def test_pangu_sigma():
    """The last two of three layers have experts: two of each of three domains, of which the text is of the second."""
    model = build({"family": "pangu_sigma", **SHAPE, "eps": EPS, "sparse": 2, "experts": 6, "domains": 3})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    embed, layers = p["body"]["embed"], [plain.layer(p, 0, place=i) for i in range(LAYERS)]
    chosen = [(2 + Hash().map(tokens[0], i, 2)[:, 0]).tolist() for i in range(LAYERS)]
    assert {*chosen[1], *chosen[2]} == {2, 3} and chosen[1] != chosen[2], "a map of its own in each layer"
    x = embed["token"][np.asarray(tokens[0])] + embed["position"]["w"][: toys.LENGTH]
    x = sub_layers(layers[0], x, None)
    x = sub_layers(layers[1], x, None, chosen[1])
    x = plain.each(lambda t: plain.layer_norm(layers[2]["norm"], t, EPS), x)
    x = sub_layers(layers[2], x, layers[2]["attention"]["query"]["w"][: toys.LENGTH], chosen[2])
    batch = {"tokens": tokens, "source": np.array([1])}
    plain.close(model(params, batch)[0], x @ embed["token"].T)


def test_what_is_refused():
    for knobs, message in (
        ({"sparse": 4}, "model.sparse=4 exceeds model.layers=3: lower it"),
        ({"experts": 7}, "router.domains=40 does not divide experts=7"),
    ):
        with pytest.raises(UserError, match=message):
            build({"family": "pangu_sigma", **SHAPE, "sparse": 2, **knobs}).spec()
