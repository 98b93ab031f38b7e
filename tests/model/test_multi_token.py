"""Prediction of several tokens against a transcription of its equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx
from lm.core.param import count, flatten
from tests import toys
from tests.toys import HEADS, LENGTH, SIZE, D


def layer_norm(x: np.ndarray, p: dict) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * p["w"] + p["b"]


def rms(x: np.ndarray, p: dict) -> np.ndarray:
    return x / math.sqrt(float(np.mean(x * x)) + 1e-6) * p["w"]


def rotated(x: np.ndarray, position: int) -> np.ndarray:
    """x [SIZE], halves paired, base 100."""
    y = x.copy()
    for i in range(SIZE // 2):
        angle = position * 100.0 ** (-2 * i / SIZE)
        a, b = x[i], x[i + SIZE // 2]
        y[i], y[i + SIZE // 2] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return y


def block(p: dict, xs: np.ndarray) -> np.ndarray:
    """A pre-norm block with rotary attention and SwiGLU, token by token. xs [S, D]."""
    a, m, ys, seen = p["attention"], p["mlp"], [], []
    for t, x in enumerate(xs):
        normed = rms(x, p["attention_norm"])
        q, k, v = ((normed @ a[n]["w"]).reshape(HEADS, SIZE) for n in "qkv")
        seen.append(([rotated(h, t) for h in k], v))
        read = []
        for h in range(HEADS):
            scores = np.array([rotated(q[h], t) @ keys[h] / math.sqrt(SIZE) for keys, _ in seen])
            weights = np.exp(scores - scores.max())
            read.append(sum(w * values[h] for w, (_, values) in zip(weights / weights.sum(), seen, strict=True)))
        x = x + np.concatenate(read) @ a["o"]["w"]
        normed = rms(x, p["mlp_norm"])
        gate = normed @ m["gate"]["w"]
        ys.append(x + (gate / (1 + np.exp(-gate)) * (normed @ m["up"]["w"])) @ m["down"]["w"])
    return np.stack(ys)


def test_each_depth_reads_the_one_before_and_the_token_behind():
    model = toys.many_ahead()
    params, tokens = toys.values(model.spec()), toys.tokens(1)
    scores = model(params, {"tokens": tokens})
    states, _, _ = model.hidden(params, {"tokens": tokens}, Ctx())
    table = np.asarray(params["body"]["embed"]["token"])
    state, ids = np.asarray(states[0]), np.asarray(tokens[0])
    toys.close(scores["0"][0], state @ table.T)
    for k in (1, 2):
        p = jax.tree.map(np.asarray, params["head"][str(k)])
        joined = []
        for i in range(LENGTH - k):
            pair = [layer_norm(state[i], p["state_norm"]), layer_norm(table[ids[i + k]], p["token_norm"])]
            joined.append(np.concatenate(pair) @ p["project"]["w"])
        module = jax.tree.map(lambda w: w[0], p["module"]["0"]["0"])  # its only layer
        state = np.stack([rms(x, p["module"]["norm"]) for x in block(module, np.stack(joined))])
        toys.close(scores[str(k)][0, : LENGTH - k], state @ table.T)


def test_table_and_head_are_the_model_s_own():
    model = toys.many_ahead()
    names = [path for path, _ in flatten(model.spec())]
    assert not any(name in ("head/token", "head/lm/w") for name in names)
    each = 2 * 2 * D + 2 * D * D + count(model.head.module.spec(D))  # two norms, the projection, the module
    assert count(model.spec()["head"]) == 2 * each


def test_a_text_shorter_than_the_depth():
    model = toys.many_ahead()
    scores = model(toys.values(model.spec()), {"tokens": jnp.array([[3]])})
    assert {name: x.shape for name, x in scores.items()} == {k: (1, 1, toys.VOCAB) for k in "012"}
