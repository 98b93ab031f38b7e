"""Attention whose heads are those of a few experts, against one token after the other."""

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.model.moe.top_k import TopK
from lm.model.special.head_experts import HeadExperts
from tests import toys
from tests.toys import WIDE, D

EXPERTS, HEADS, SIZE, LENGTH = 4, 2, 6, 6


def layer(k: int) -> HeadExperts:
    return HeadExperts(EXPERTS, HEADS, SIZE, TopK(k, normalize=1.0, init=WIDE), rotary=None)


def one_by_one(p, x: np.ndarray, k: int) -> np.ndarray:
    """x [S, D]: each choice of each token on its own, head by head."""
    keys, values = (x @ p[n]["w"] for n in "kv")
    y = np.zeros_like(x) + p["b"]
    for t, token in enumerate(x):
        logits = token @ p["router"]["w"]
        chosen = np.argsort(-logits)[:k]
        weights = np.exp(logits[chosen]) / np.exp(logits[chosen]).sum()
        for e, weight in zip(chosen, weights, strict=True):
            asked, read = token @ p["experts"]["q"]["w"][e], []
            for head, query in enumerate(np.split(asked, HEADS)):
                own = slice(head * SIZE, (head + 1) * SIZE)
                scores = keys[: t + 1, own] @ query / np.sqrt(SIZE)
                read.append(np.exp(scores) / np.exp(scores).sum() @ values[: t + 1, own])
            y[t] += weight * np.concatenate(read) @ p["experts"]["o"]["w"][e]
    return y


@pytest.mark.parametrize("k", [1, 2, EXPERTS])
def test_each_token_asks_with_the_heads_of_its_experts(k):
    mixture = layer(k)
    p = toys.values(mixture.spec(D))
    x = np.random.default_rng(0).standard_normal((2, LENGTH, D)).astype(np.float32)
    segments = np.array([[1] * LENGTH, [0, 0] + [1] * (LENGTH - 2)])
    rows = {"segments": segments, "positions": np.maximum(segments.cumsum(1) - 1, 0)}

    def call(p, x):
        aux: dict = {}
        y, _ = mixture(p, x, Ctx(rows=rows, record=frozenset(["router_logits"])), None, aux)
        return y, aux

    y, aux = jax.jit(call)(p, x)
    p = jax.tree.map(np.asarray, p)
    for row, first in ((0, 0), (1, 2)):
        toys.close(y[row, first:], one_by_one(p, x[row, first:], k))
    assert aux["router"].load.sum() == k * segments.sum()
    toys.close(aux["router_logits"], x @ p["router"]["w"])


def test_experts_on_several_devices_compute_what_they_do_on_one():
    mixture = layer(2)
    p = toys.values(mixture.spec(D))
    x = np.random.default_rng(0).standard_normal((4, LENGTH, D)).astype(np.float32)
    rows = {"positions": np.broadcast_to(np.arange(LENGTH), (4, LENGTH)), "segments": np.ones((4, LENGTH), np.int32)}

    def value_and_grads(p, sharding=None):
        ctx = Ctx(rows=rows, sharding=sharding)
        return jax.jit(jax.value_and_grad(lambda p: (mixture(p, x, ctx, None, {})[0] ** 2).sum()))(p)

    sharding = Sharding(make_mesh({"data": 2, "expert": 4}))
    toys.close(value_and_grads(jax.device_put(p, sharding.tree(mixture.spec(D))), sharding), value_and_grads(p), 1e-4)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(UserError, match="k=5"):
        layer(5).spec(D)
