"""What attention does to queries, keys, scores and results, against a transcription with loops."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.model.attention import Attention
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.rotary import Rotary
from tests import toys
from tests.toys import LENGTH, D

HEADS, GROUPS, SIZE, LAYER, THETA = 4, 2, 6, 2, 40.0
ROTARY = Rotary(THETA)
attention = functools.partial(Attention, HEADS, SIZE, GROUPS, biases=("q", "k", "v", "o"))
CASES = {
    "plain": attention(),
    "scale": attention(scale=0.3),
    "by_layer": attention(by_layer=True),
    "clip": attention(clip=0.6),
    "cap": attention(cap=0.8),
    "sinks": attention(sinks=True),
    "cap_and_sinks": attention(cap=0.8, sinks=True),
    "each_head_its_own_norm": attention(q_norm=RMSNorm(), k_norm=LayerNorm(), norm_over="each", rotary=ROTARY),
    "one_norm_for_all_heads": attention(q_norm=LayerNorm(bias=False), k_norm=RMSNorm(gain="1+w"), rotary=ROTARY),
    "one_norm_over_all_heads": attention(q_norm=RMSNorm(), k_norm=LayerNorm(), norm_over="whole", rotary=ROTARY),
    "normed_after_rotation": attention(q_norm=RMSNorm(), k_norm=RMSNorm(), norm_rotated=True, rotary=ROTARY),
    "result_normed": attention(inner_norm=LayerNorm(), clip=2.0),
}


def normed(norm: Any, p: dict, x: np.ndarray) -> np.ndarray:
    if isinstance(norm, LayerNorm):
        y = (x - x.mean()) / math.sqrt(x.var() + norm.eps)
    else:
        y = x / math.sqrt(float((x * x).mean()) + norm.eps)
    gain = 1 + p["w"] if norm.gain == "1+w" else p["w"]
    return y * gain + p.get("b", 0)


def rotated(x: np.ndarray, position: int) -> np.ndarray:
    y = x.copy()
    for i in range(SIZE // 2):
        angle = position * THETA ** (-2 * i / SIZE)
        a, b = x[i], x[i + SIZE // 2]
        y[i], y[i + SIZE // 2] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return y


def projected(layer: Attention, p: dict, name: str, token: np.ndarray, position: int) -> list[np.ndarray]:
    """One token's queries or keys, a head each."""
    norm, norm_p = {"q": (layer.q_norm, p.get("q_norm")), "k": (layer.k_norm, p.get("k_norm"))}[name]
    y = token @ p[name]["w"] + p[name]["b"]
    if layer.clip:
        y = np.minimum(np.maximum(y, -layer.clip), layer.clip)
    if norm and layer.norm_over == "whole":
        y = normed(norm, norm_p, y)
    heads = list(y.reshape(-1, SIZE))
    for h, head in enumerate(heads):
        own = {key: w[h] for key, w in norm_p.items()} if norm and layer.norm_over == "each" else norm_p
        if norm and layer.norm_over != "whole" and not layer.norm_rotated:
            head = normed(norm, own, head)
        head = rotated(head, position) if layer.rotary else head
        heads[h] = normed(norm, own, head) if layer.norm_rotated else head
    return heads


def expected(layer: Attention, p: dict, xs: np.ndarray) -> np.ndarray:
    """xs [S, d]"""
    queries = [projected(layer, p, "q", x, t) for t, x in enumerate(xs)]
    keys = [projected(layer, p, "k", x, t) for t, x in enumerate(xs)]
    values = [(x @ p["v"]["w"] + p["v"]["b"]).reshape(GROUPS, SIZE) for x in xs]
    if layer.clip:
        values = [np.clip(v, -layer.clip, layer.clip) for v in values]
    scale = layer.scale or 1 / math.sqrt(SIZE)
    scale = scale / (LAYER + 1) if layer.by_layer else scale
    ys = []
    for t in range(len(xs)):
        read = []
        for h in range(HEADS):
            g = h // (HEADS // GROUPS)
            scores = [float(queries[t][h] @ keys[j][g]) * scale for j in range(t + 1)]
            if layer.cap:
                scores = [layer.cap * math.tanh(s / layer.cap) for s in scores]
            total = sum(math.exp(s) for s in scores) + (math.exp(p["sinks"][h]) if layer.sinks else 0)
            read.append(sum(math.exp(s) / total * values[j][g] for j, s in enumerate(scores)))
        y = np.concatenate(read)
        y = normed(layer.inner_norm, p["inner_norm"], y) if layer.inner_norm else y
        ys.append(y @ p["o"]["w"] + p["o"]["b"])
    return np.stack(ys)


@pytest.mark.parametrize("name", CASES)
def test_attention(name):
    layer = CASES[name]
    p = toys.values(layer.spec(D))
    x = np.random.default_rng(3).standard_normal((1, LENGTH, D)).astype(np.float32)
    ctx = Ctx(rows={"positions": jnp.arange(LENGTH)[None]}, layer=LAYER)
    found = jax.jit(lambda p, x: layer(p, x, ctx, None, {})[0])(p, x)
    as_float64 = jax.tree.map(lambda w: np.asarray(w, np.float64), p)
    toys.close(found[0], expected(layer, as_float64, x[0].astype(np.float64)))
