"""YaLM against a transcription: narrow embeddings filled up with zeros, no norm in front, and BERT's head."""

import numpy as np

from lm.core.param import flatten
from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS, THETA, WIDTH = 12, 3, 4, 3, 1e-2, 50.0, 5
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB, "embed_width": WIDTH}


def attended(p: dict, x: np.ndarray) -> np.ndarray:
    q, k, v = (plain.linear(p[n], x).reshape(len(x), HEADS, SIZE) for n in "qkv")
    q, k = (np.stack([[plain.rotated(h, t, THETA) for h in z[t]] for t in range(len(z))]) for z in (q, k))
    return plain.linear(p["o"], plain.attention(q, k, v))


def geglu(p: dict, x: np.ndarray) -> np.ndarray:
    return plain.linear(p["down"], plain.gelu(plain.linear(p["gate"], x)) * plain.linear(p["up"], x))


def test_yalm():
    model = build({"family": "yalm", **SHAPE, "eps": EPS, "theta": THETA})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    assert not any("project" in path for path, _ in flatten(params))
    p = plain.numpy(params)

    def normed(norm: dict, x: np.ndarray) -> np.ndarray:
        return plain.each(lambda t: plain.layer_norm(norm, t, EPS), x)

    embed, head = p["body"]["embed"], p["head"]
    x = normed(embed["norm"], embed["token"][np.asarray(tokens[0])])
    x = np.concatenate([x, np.zeros((len(x), D - WIDTH))], axis=-1)
    halves = [model.body.stack.locate(i) for i in range(LAYERS + 1)]
    layers = [plain.layer(p, at.repeat, at.segment, at.position) for at in halves]
    first = layers[0] | layers[1]
    for i, at in enumerate([first, *layers[2:]]):
        x = x + attended(at["attention"], normed(at["attention_norm"], x) if i else x)
        x = x + geglu(at["mlp"], normed(at["mlp_norm"], x))
    x = plain.gelu(plain.linear(head["dense"], normed(p["body"]["stack"]["norm"], x)))
    expected = normed(head["norm"], x) @ embed["token"].T + head["lm"]["b"]
    plain.close(model(params, {"tokens": tokens})[0], expected)
