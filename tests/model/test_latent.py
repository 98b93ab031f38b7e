"""Latent attention against a transcription with loops, its two ways to the same result, and what it caches."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.adapt.lora import LowRank
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import count
from lm.model.layers import RMSNorm
from lm.model.rotary import Rotary
from lm.model.special.latent import LatentAttention
from tests import toys
from tests.toys import LENGTH, D

HEADS, NOPE, ROPE, VALUE, RANK = 3, 4, 2, 3, 6
LAYER = LatentAttention(HEADS, NOPE, ROPE, VALUE, RANK, q_rank=5, rotary=Rotary(50.0, interleaved=True), bias=True)


def rms(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / math.sqrt(float(np.mean(x * x)) + 1e-6) * gain


def turned(pair: np.ndarray, position: int) -> np.ndarray:
    """One pair, whose frequency is 1."""
    c, s = math.cos(position), math.sin(position)
    return np.array([pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s])


def expected(p: dict, x: np.ndarray) -> np.ndarray:
    """x [S, D], token by token and head by head (equations 9 to 19 of the paper)."""
    p = jax.tree.map(np.asarray, p)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[name]["w"] + p[name].get("b", 0)

    keys, values, ys = [], [], []
    for t, token in enumerate(x):
        latent = rms(linear("latent", token), p["latent_norm"]["w"])
        shared = turned(linear("k_pe", token), t)
        k, v = linear("k", latent).reshape(HEADS, NOPE), linear("v", latent).reshape(HEADS, VALUE)
        keys.append([np.concatenate([k[h], shared]) for h in range(HEADS)])
        values.append(v)
        asked = linear("q_up", rms(linear("q_latent", token), p["q_latent_norm"]["w"])).reshape(HEADS, NOPE + ROPE)
        read = []
        for h in range(HEADS):
            q = np.concatenate([asked[h, :NOPE], turned(asked[h, NOPE:], t)])
            scores = np.array([q @ keys[j][h] / math.sqrt(NOPE + ROPE) for j in range(t + 1)])
            weights = np.exp(scores - scores.max())
            read.append(sum(w * values[j][h] for j, w in enumerate(weights / weights.sum())))
        ys.append(linear("o", np.concatenate(read)))
    return np.stack(ys)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, LENGTH, D)).astype(np.float32)


def call(layer: LatentAttention, p: dict, x: np.ndarray) -> jax.Array:
    ctx = Ctx(rows={"positions": jnp.arange(x.shape[1])[None]})
    return layer(p, jnp.asarray(x), ctx, None, {})[0]


def test_latent_attention(x):
    p = toys.values(LAYER.spec(D))
    toys.close(call(LAYER, p, x)[0], expected(p, x[0]))


def test_keys_and_values_may_be_made_or_absorbed(x, monkeypatch):
    p = toys.values(LAYER.spec(D))
    found = []
    for absorbs in (False, True):
        monkeypatch.setattr(LatentAttention, "_absorbs", lambda *_, absorbs=absorbs: absorbs)
        found.append(call(LAYER, p, x))
    toys.close(*found)


def test_one_token_is_decoded_from_the_latents():
    """With DeepSeek-V3's sizes; texts are read with keys and values made. Adapted matrices have no plain form."""
    layer = LatentAttention(128, 128, 64, 128, 512)
    w = {"w": jnp.ones((2, 2))}
    assert layer._absorbs({"k": w, "v": w}, 1, 4096)
    assert not layer._absorbs({"k": w, "v": w}, 4096, 4096)
    adapted = {"w": LowRank(w["w"], w["w"], w["w"])}
    assert not layer._absorbs({"k": w, "v": adapted}, 1, 4096)


@pytest.mark.parametrize(("d", "heads", "q_rank"), [(7168, 128, 1536), (5120, 128, 1536), (2048, 16, None)])
def test_published_attention_has_as_many_parameters(d, heads, q_rank):
    """DeepSeek-V3, V2 and V2-Lite: d q + q + q h 192 (or d h 192) + d 576 + 512 + 512 h 256 + h 128 d."""
    layer = LatentAttention(heads, 128, 64, 128, 512, q_rank)
    queries = d * q_rank + q_rank + q_rank * heads * 192 if q_rank else d * heads * 192
    assert count(layer.spec(d)) == queries + d * 576 + 512 + 512 * heads * 256 + heads * 128 * d


@pytest.mark.parametrize("heads", [1, 16])
def test_the_cache_does_not_grow_with_heads(heads):
    """Per token: the latent and the shared rotary key, and where the token stands."""
    cache = dataclasses.replace(LAYER, heads=heads).cache(D, toys.shape(batch=2, length=10))
    assert cache.k.size + cache.v.size == 2 * 10 * (RANK + ROPE)
    assert cache.positions.size == cache.segments.size == 2 * 10


def test_decoding_token_by_token_equals_one_call(x):
    layer = dataclasses.replace(LAYER, norm=RMSNorm(1e-2))
    p, cache, found = toys.values(layer.spec(D)), layer.cache(D, toys.shape(1)), []
    for t in range(LENGTH):
        ctx = Ctx(rows={"positions": jnp.array([[t]])})
        y, cache = layer(p, jnp.asarray(x[:, t : t + 1]), ctx, cache, {})
        found.append(y)
    toys.close(jnp.concatenate(found, axis=1), call(layer, p, x))


@pytest.mark.parametrize("knobs", [{"heads": 0}, {"rotary": Rotary(values=True)}], ids=str)
def test_what_it_cannot_do_is_refused(knobs):
    with pytest.raises(UserError, match="latent attention"):
        LatentAttention(**{"heads": 2, "nope_dim": 4, "rope_dim": 2, "value_dim": 3, "kv_rank": 5} | knobs)
