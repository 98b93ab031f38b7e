"""LaMDA against a transcription of what its paper says, token by token, in numpy."""

import math

import jax
import numpy as np

from lm.zoo.lamda import lamda
from tests import toys

D, HEADS, SIZE, VOCAB, LENGTH = 8, 3, 5, 23, 12


def bucket(distance, buckets=6, farthest=9):
    """T5's, of keys behind the query: half the buckets are exact, the others grow."""
    exact = buckets // 2
    if distance < exact:
        return distance
    grown = exact + int(math.log(distance / exact) / math.log(farthest / exact) * (buckets - exact))
    return min(grown, buckets - 1)


def norm(p, x):
    return x / math.sqrt((x**2).mean() + 1e-2) * p["w"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_lamda():
    model = lamda(
        layers=2, d_model=D, heads=HEADS, head_dim=SIZE, d_ff=14, vocab=VOCAB, buckets=6, max_distance=9, eps=1e-2
    )
    params = toys.values(model.spec())
    tokens = np.random.default_rng(0).integers(0, VOCAB, LENGTH)
    p = jax.tree.map(np.asarray, params)
    table, stack = p["body"]["embed"]["token"], p["body"]["stack"]
    bias = stack["tables"]["relative_bias"]["w"]
    xs = [table[t] for t in tokens]
    for layer in (jax.tree.map(lambda x, i=i: x[i], stack["0"]["0"]) for i in range(2)):
        own = layer["attention"]
        normed = [norm(layer["attention_norm"], x) for x in xs]
        q, k, v = ([(x @ own[n]["w"]).reshape(HEADS, SIZE) for x in normed] for n in "qkv")
        for i in range(LENGTH):
            got = np.zeros((HEADS, SIZE))
            for h in range(HEADS):
                scores = [q[i][h] @ k[j][h] / math.sqrt(SIZE) + bias[bucket(i - j), h] for j in range(i + 1)]
                weights = np.exp(scores) / np.exp(scores).sum()
                got[h] = sum(w * v[j][h] for j, w in enumerate(weights))
            xs[i] = xs[i] + got.reshape(-1) @ own["o"]["w"]
        mlp = layer["mlp"]
        normed = [norm(layer["mlp_norm"], x) for x in xs]
        xs = [
            x + (gelu(y @ mlp["gate"]["w"]) * (y @ mlp["up"]["w"])) @ mlp["down"]["w"]
            for x, y in zip(xs, normed, strict=True)
        ]
    expected = np.stack([table @ norm(stack["norm"], x) for x in xs])
    toys.close(toys.forward(model, params, {"tokens": tokens[None]})[0][0], expected, atol=2e-5)
