"""What papers' equations need, in plain numpy and float64, for one text and token by token."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Array = np.ndarray
Tree = Any


def numpy(params: Tree) -> Tree:
    return jax.tree.map(lambda w: np.asarray(w, np.float64), params)


def layer(params: Tree, i: int, segment: int = 0, place: int = 0) -> Tree:
    """The i-th repeat of a place in the pattern of a segment of the stack."""
    return jax.tree.map(lambda w: w[i], params["body"]["stack"][str(segment)][str(place)])


def linear(p: Tree, x: Array) -> Array:
    return x @ p["w"] + p.get("b", 0.0)


def layer_norm(p: Tree, x: Array, eps: float) -> Array:
    """x [d]"""
    return (x - x.mean()) / math.sqrt(x.var() + eps) * p.get("w", 1.0) + p.get("b", 0.0)


def rms_norm(p: Tree, x: Array, eps: float) -> Array:
    """x [d]"""
    return x / math.sqrt(float((x * x).mean()) + eps) * p["w"]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    return x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rotated(x: Array, position: float, theta: float, interleaved: bool = False) -> Array:
    """x [r] at a position: pair i turns by position * theta^(-2i/r)."""
    y, r = x.copy(), len(x)
    for i in range(r // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + r // 2)
        c, s = math.cos(position * theta ** (-2 * i / r)), math.sin(position * theta ** (-2 * i / r))
        y[a], y[b] = x[a] * c - x[b] * s, x[b] * c + x[a] * s
    return y


def attention(
    q: Array,
    k: Array,
    v: Array,
    sees: Callable[[int, int], bool] = lambda i, j: j <= i,
    scale: float | None = None,
) -> Array:
    """q [S, heads, K], k [T, groups, K], v [T, groups, V] -> [S, heads * V]; `sees`: whether query i sees key j."""
    heads, size = q.shape[1:]
    share, ys = heads // k.shape[1], []
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if sees(i, j)]
        for h in range(heads):
            scores = np.array([q[i, h] @ k[j, h // share] for j in seen]) * (scale or size**-0.5)
            weights = np.exp(scores - scores.max())
            ys.append(sum(w * v[j, h // share] for w, j in zip(weights / weights.sum(), seen, strict=True)))
    return np.stack(ys).reshape(len(q), -1)


def each(function: Callable[[Array], Array], xs: Array) -> Array:
    """A function of one token, for each token of a text."""
    return np.stack([function(x) for x in xs])


def close(ours: Any, theirs: Array) -> None:
    """float32 against float64."""
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=2e-5 * np.abs(theirs).max())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def highest(scores: Array, k: int) -> list[int]:
    """The k best places, the best first."""
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]
