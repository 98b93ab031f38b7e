"""GLaM against a transcription of its equations, with room for all tokens and without."""

import math

import numpy as np
import pytest

from lm.zoo.registry import build
from tests import toys
from tests.zoo import plain

D, HEADS, SIZE, EXPERTS, EPS = 12, 3, 4, 4, 1e-2
SHAPE = {"layers": 4, "d_model": D, "heads": HEADS, "head_dim": SIZE, "d_ff": 10, "vocab": toys.VOCAB, "eps": EPS}
BUCKETS, FARTHEST = 6, 7


def bucket(distance: int) -> int:
    """Half of the buckets are for one distance each, the others for ever wider ranges up to FARTHEST (T5)."""
    exact = BUCKETS // 2
    if distance < exact:
        return distance
    share = math.log(distance / exact) / math.log(FARTHEST / exact)
    return min(BUCKETS - 1, exact + int(share * (BUCKETS - exact)))


def attention(p: dict, y: np.ndarray) -> np.ndarray:
    q, k, v = ((y @ p[n]["w"]).reshape(len(y), HEADS, SIZE) for n in "qkv")
    table, read = p["terms"]["0"]["w"], np.zeros((len(y), HEADS, SIZE))
    for h in range(HEADS):
        for i in range(len(y)):
            scores = np.array([q[i, h] @ k[j, h] + table[bucket(i - j), h] for j in range(i + 1)])
            read[i, h] = plain.softmax(scores) @ v[: i + 1, h]
    return read.reshape(len(y), -1) @ p["o"]["w"]


def mixture(p: dict, y: np.ndarray, k: int, slots: int) -> np.ndarray:
    """All first choices before any second one, earlier tokens before later ones, until an expert has no slot left."""
    probs = plain.each(lambda t: plain.softmax(t @ p["router"]["w"]), y)
    chosen, out, taken = plain.each(lambda s: np.array(plain.highest(s, k)), probs), np.zeros_like(y), [0] * EXPERTS
    for c in range(k):
        for t, e in enumerate(chosen[:, c]):
            taken[e] += 1
            if taken[e] <= slots:
                inner = plain.gelu_tanh(y[t] @ p["experts"]["up"]["w"][e])
                out[t] += probs[t, e] / probs[t, chosen[t]].sum() * (inner @ p["experts"]["down"]["w"][e])
    return out


def expected(params: dict, tokens: np.ndarray, k: int, capacity: float) -> np.ndarray:
    """tokens [S] -> logits [S, vocab]"""
    params = plain.numpy(params)
    table = params["body"]["embed"]["token"]
    x, slots = table[tokens], math.ceil(capacity * k * len(tokens) / EXPERTS)

    def norm(p: dict, x: np.ndarray) -> np.ndarray:
        return plain.each(lambda t: plain.rms_norm(p, t, EPS), x)

    for i in range(4):
        p = plain.layer(params, i // 2, place=i % 2)
        x = x + attention(p["attention"], norm(p["attention_norm"], x))
        y = norm(p["mlp_norm"], x)
        if i % 2 == 0:
            x = x + mixture(p["mlp"], y, k, min(slots, len(tokens)))
        else:
            m = p["mlp"]
            x = x + (plain.gelu_tanh(y @ m["gate"]["w"]) * (y @ m["up"]["w"])) @ m["down"]["w"]
    return norm(params["body"]["stack"]["norm"], x) / math.sqrt(D) @ table.T


@pytest.mark.parametrize(("k", "capacity"), [(2, 4.0), (2, 1.0), (1, 1.0)])
def test_glam(k, capacity):
    knobs = {"experts": EXPERTS, "k": k, "capacity": capacity, "buckets": BUCKETS, "max_distance": FARTHEST}
    model = build({"family": "glam", **SHAPE, **knobs})
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    wanted = expected(params, np.asarray(tokens[0]), k, capacity)
    plain.close(model(params, {"tokens": tokens})[0], wanted)
    roomy = expected(params, np.asarray(tokens[0]), k, 9.0)
    assert (capacity < 2) is not np.allclose(wanted, roomy)  # some were dropped
