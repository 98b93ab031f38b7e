"""The GLM line against transcriptions of its layers, on a text with blanks: what stands around them is seen by all, the
spans are written behind it, each token placed where its blank is and within its span."""

import numpy as np
import pytest

from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, LAYERS, EPS, THETA = 16, 2, 8, 2, 1e-2, 30.0
SHAPE = {"layers": LAYERS, "d_model": D, "heads": HEADS, "d_ff": 20, "vocab": toys.VOCAB, "eps": EPS}
# Five tokens with blanks at 1 and 3; the span of the second blank comes first, and is one token longer.
PREFIX = np.array([1, 1, 1, 1, 1, 0, 0, 0])
PLACE = np.array([0, 1, 2, 3, 4, 3, 3, 1])
SPAN = np.array([0, 0, 0, 0, 0, 1, 2, 1])


def rows(tokens: np.ndarray) -> dict:
    return {"tokens": tokens, "prefix": PREFIX[None] > 0, "text_position": PLACE[None], "span": SPAN[None]}


def attended(p: dict, x: np.ndarray, turn) -> np.ndarray:
    """x [S, D]; `turn`: how the query or key of one head at one place is rotated."""
    q, k, v = (plain.linear(p[n], x).reshape(len(x), HEADS, SIZE) for n in "qkv")
    q, k = (np.stack([[turn(h, t) for h in z[t]] for t in range(len(z))]) for z in (q, k))
    return plain.linear(p["o"], plain.attention(q, k, v, lambda i, j: j <= i or PREFIX[j] == 1))


def test_glm():
    model = build({"family": "glm", **SHAPE, "context": 10})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    embed = p["body"]["embed"]
    x = np.stack(
        [
            embed["token"][token] + embed["position"]["w"][place] + embed["span"]["w"][span]
            for token, place, span in zip(np.asarray(tokens[0]), PLACE, SPAN, strict=True)
        ]
    )
    for i in range(LAYERS):
        at = plain.layer(p, i)
        y = plain.each(lambda t, at=at: plain.layer_norm(at["attention_norm"], t, EPS), x)
        x = x + attended(at["attention"], y, lambda h, t: h)
        y = plain.each(lambda t, at=at: plain.layer_norm(at["mlp_norm"], t, EPS), x)
        x = x + plain.linear(at["mlp"]["down"], plain.gelu_tanh(plain.linear(at["mlp"]["up"], y)))
    x = plain.each(lambda t: plain.layer_norm(p["body"]["stack"]["norm"], t, EPS), x)
    plain.close(model(params, rows(tokens))[0], x @ embed["token"].T)


def geglu(p: dict, x: np.ndarray) -> np.ndarray:
    return plain.linear(p["down"], plain.gelu(plain.linear(p["gate"], x)) * plain.linear(p["up"], x))


def gelu(p: dict, x: np.ndarray) -> np.ndarray:
    return plain.linear(p["down"], plain.gelu_tanh(plain.linear(p["up"], x)))


def one_way(head: np.ndarray, t: int) -> np.ndarray:
    return plain.rotated(head, PLACE[t], THETA)


def two_ways(head: np.ndarray, t: int) -> np.ndarray:
    first, second = np.split(head, 2)
    return np.concatenate([plain.rotated(first, PLACE[t], THETA), plain.rotated(second, SPAN[t], THETA)])


@pytest.mark.parametrize(
    ("family", "rotary", "turn", "mlp"),
    [
        ("glm-130b", {"type": "Rotary", "theta": THETA}, one_way, geglu),
        ("chatglm", {"type": "Rotary2D", "rotary": {"type": "Rotary", "theta": THETA}}, two_ways, gelu),
    ],
)
def test_deep_glm(family, rotary, turn, mlp):
    """As in the published code: each sub-layer's input is normed, alpha times it goes on, and a final norm follows.
    What is the norm of the embeddings here is the first layer's input norm there, and so on."""
    model = build({"family": family, **SHAPE, "rotary": rotary})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    alpha = (2 * LAYERS) ** 0.5
    norms = [p["body"]["embed"]["norm"]]
    for i in range(LAYERS):
        norms += [plain.layer(p, i)[name] for name in ("attention_norm", "mlp_norm")]
    x = p["body"]["embed"]["token"][np.asarray(tokens[0])]
    for i in range(LAYERS):
        at = plain.layer(p, i)
        for name, norm in zip(("attention", "mlp"), norms[2 * i :], strict=False):
            y = plain.each(lambda t, norm=norm: plain.layer_norm(norm, t, EPS), x)
            x = alpha * y + (attended(at[name], y, turn) if name == "attention" else mlp(at[name], y))
    x = plain.each(lambda t: plain.layer_norm(norms[-1], t, EPS), x)
    plain.close(model(params, rows(tokens))[0], x @ p["body"]["embed"]["token"].T)


def test_a_text_without_blanks_is_read_in_order():
    """Without the rows that tell of blanks all is written, each token at its own place."""
    for family, more in (("glm", {"context": 10}), ("chatglm", {})):
        model = build({"family": family, **SHAPE, **more})
        params, tokens = toys.values(model.spec()), toys.tokens(1)
        count, none = np.arange(toys.LENGTH)[None], np.zeros((1, toys.LENGTH), int)
        plain.close(
            model(params, {"tokens": tokens}),
            np.asarray(model(params, {"tokens": tokens, "text_position": count, "span": none, "prefix": none > 0})),
        )


def test_chatglm_2_turns_half_of_each_head():
    model = build({"family": "chatglm2", **SHAPE, "kv_heads": 1, "theta": THETA})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    p = plain.numpy(params)
    x = p["body"]["embed"]["token"][np.asarray(tokens[0])]

    def turn(h: np.ndarray, t: int) -> np.ndarray:
        return np.concatenate([plain.rotated(h[: SIZE // 2], t, THETA, interleaved=True), h[SIZE // 2 :]])

    for i in range(LAYERS):
        at = plain.layer(p, i)
        a, m = at["attention"], at["mlp"]
        y = plain.each(lambda t, at=at: plain.rms_norm(at["attention_norm"], t, EPS), x)
        q, k, v = (plain.linear(a[n], y).reshape(len(y), -1, SIZE) for n in "qkv")
        q, k = (np.stack([[turn(h, t) for h in z[t]] for t in range(len(z))]) for z in (q, k))
        x = x + plain.linear(a["o"], plain.attention(q, k, v))
        y = plain.each(lambda t, at=at: plain.rms_norm(at["mlp_norm"], t, EPS), x)
        x = x + plain.linear(m["down"], plain.silu(plain.linear(m["gate"], y)) * plain.linear(m["up"], y))
    x = plain.each(lambda t: plain.rms_norm(p["body"]["stack"]["norm"], t, EPS), x)
    plain.close(model(params, {"tokens": tokens})[0], x @ p["head"]["w"].T)
