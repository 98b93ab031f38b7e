"""What attention does to queries, keys, scores and results, against a transcription with loops."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.model.attention import Attention, Projections, QKNorm, Softmax
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.rotary import Rotary
from lm.model.special.sub_norm import SubNormAttention
from tests import toys
from tests.toys import LENGTH, D

HEADS, GROUPS, SIZE, LAYER, THETA = 4, 2, 6, 2, 40.0
ROTARY = Rotary(THETA)
maps = functools.partial(Projections, ("q", "k", "v", "o"))
attention = functools.partial(Attention, HEADS, SIZE, GROUPS, projections=maps())
CASES = {
    "plain": attention(),
    "scale": attention(softmax=Softmax(0.3)),
    "by_layer": attention(softmax=Softmax(by_layer=True)),
    "clip": attention(projections=maps(clip=0.6)),
    "cap": attention(softmax=Softmax(cap=0.8)),
    "sinks": attention(softmax=Softmax(sinks=True)),
    "cap_and_sinks": attention(softmax=Softmax(cap=0.8, sinks=True)),
    "each_head_its_own_norm": attention(qk_norm=QKNorm(RMSNorm(), LayerNorm(), over="each"), rotary=ROTARY),
    "one_norm_for_all_heads": attention(qk_norm=QKNorm(LayerNorm(bias=False), RMSNorm(gain="1+w")), rotary=ROTARY),
    "one_norm_over_all_heads": attention(qk_norm=QKNorm(RMSNorm(), LayerNorm(), over="whole"), rotary=ROTARY),
    "normed_after_rotation": attention(qk_norm=QKNorm(RMSNorm(), RMSNorm(), after_rotation=True), rotary=ROTARY),
    "result_normed": SubNormAttention(attention(projections=maps(clip=2.0)), LayerNorm()),
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
    qk, norm_p = layer.qk_norm or QKNorm(), p.get(f"{name}_norm")
    norm, clip = {"q": qk.q, "k": qk.k}[name], layer.projections.clip
    y = token @ p[name]["w"] + p[name]["b"]
    if clip:
        y = np.minimum(np.maximum(y, -clip), clip)
    if norm and qk.over == "whole":
        y = normed(norm, norm_p, y)
    heads = list(y.reshape(-1, SIZE))
    for h, head in enumerate(heads):
        own = {key: w[h] for key, w in norm_p.items()} if norm and qk.over == "each" else norm_p
        if norm and qk.over != "whole" and not qk.after_rotation:
            head = normed(norm, own, head)
        head = rotated(head, position) if layer.rotary else head
        heads[h] = normed(norm, own, head) if qk.after_rotation else head
    return heads


def expected(layer: Attention | SubNormAttention, p: dict, xs: np.ndarray) -> np.ndarray:
    """xs [S, D]"""
    layer, norm = (layer.attention, layer.norm) if isinstance(layer, SubNormAttention) else (layer, None)
    queries = [projected(layer, p, "q", x, t) for t, x in enumerate(xs)]
    keys = [projected(layer, p, "k", x, t) for t, x in enumerate(xs)]
    values = [(x @ p["v"]["w"] + p["v"]["b"]).reshape(GROUPS, SIZE) for x in xs]
    clip, softmax = layer.projections.clip, layer.softmax
    if clip:
        values = [np.clip(v, -clip, clip) for v in values]
    scale = softmax.scale or 1 / math.sqrt(SIZE)
    scale = scale / (LAYER + 1) if softmax.by_layer else scale
    ys = []
    for t in range(len(xs)):
        read = []
        for h in range(HEADS):
            g = h // (HEADS // GROUPS)
            scores = [float(queries[t][h] @ keys[j][g]) * scale for j in range(t + 1)]
            if softmax.cap:
                scores = [softmax.cap * math.tanh(s / softmax.cap) for s in scores]
            total = sum(math.exp(s) for s in scores) + (math.exp(p["sinks"][h]) if softmax.sinks else 0)
            read.append(sum(math.exp(s) / total * values[j][g] for j, s in enumerate(scores)))
        y = np.concatenate(read)
        y = normed(norm, p["inner_norm"], y) if norm else y
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
