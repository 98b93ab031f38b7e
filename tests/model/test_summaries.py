"""Summaries of blocks, and attention in blocks of queries with biases, against what they stand for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx, Execution
from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import Alibi, BucketedBias
from lm.model.kv_sources import SelfKV
from lm.model.layers import RMSNorm
from lm.model.masks import Window
from lm.model.special.summaries import BlockSummaries
from tests import toys

D, SIZE, RADIUS, BLOCK = 8, 3, 2, 4
WIDE = Normal(0.5)
FAR = 40
near, far = (BucketedBias(None, 4 * FAR, 4 * FAR, True, WIDE) for _ in range(2))
ATTENTION = Attention(
    2,
    SIZE,
    mask=Window(RADIUS + 1, RADIUS + 1),
    bias=(near,),
    softmax=Softmax(1.0),
    source=BlockSummaries(BLOCK, RMSNorm(0.1), far),
    projections=Projections(init=WIDE),
)


def run(attention: Attention, params: dict, x: np.ndarray, lengths: list[int], kernel: str | None = None) -> np.ndarray:
    """Attention on one row of packed texts with these lengths."""
    segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])[None]
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    rows = {"positions": jnp.asarray(positions), "segments": jnp.asarray(segments)}
    call = jax.jit(lambda p, x: attention(p, x, Ctx(rows=rows, execution=Execution(attention=kernel)), None, {})[0])
    return np.asarray(call(params, jnp.asarray(x[None], jnp.float32)))[0]


def plain(p: dict, x: np.ndarray) -> np.ndarray:
    """Equations of arXiv 2112.07916 (section 3.1) for one text x [n, d], token by token."""
    whole = len(x) // BLOCK
    block = [min(i // BLOCK, whole - 1) for i in range(len(x))]
    sums = [sum(x[i] for i in range(len(x)) if block[i] == m) for m in range(whole)]
    summaries = [y / np.sqrt(np.mean(y**2) + 0.1) * p["summaries"]["norm"]["w"] for y in sums]
    y = np.zeros_like(x)
    for i, token in enumerate(x):
        places = [j for j in range(len(x)) if abs(i - j) <= RADIUS]
        keys = np.array([x[j] for j in places] + summaries)
        aheads = [j - i for j in places] + [m - block[i] for m in range(whole)]
        tables = [p["terms"]["0"]["w"]] * len(places) + [p["summaries"]["bias"]["w"]] * whole
        read = []
        for h in range(2):
            part = slice(h * SIZE, (h + 1) * SIZE)
            bias = [t[abs(a) + (2 * FAR if a > 0 else 0), h] for t, a in zip(tables, aheads, strict=True)]
            scores = (keys @ p["k"]["w"])[:, part] @ (token @ p["q"]["w"])[part] + bias
            probs = np.exp(scores - scores.max())
            read.append(probs / probs.sum() @ (keys @ p["v"]["w"])[:, part])
        y[i] = np.concatenate(read) @ p["o"]["w"]
    return y


def test_packed_texts_have_their_own_summaries():
    """Whole blocks, a rest that belongs to the last one, and a text shorter than a block."""
    lengths = [8, 3, 10, 5]
    params = toys.values(ATTENTION.spec(D))
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    x = np.random.default_rng(0).standard_normal((sum(lengths), D))
    wanted = np.concatenate([plain(p, part) for part in np.split(x, np.cumsum(lengths)[:-1])])
    np.testing.assert_allclose(run(ATTENTION, params, x, lengths), wanted, atol=1e-5, rtol=1e-5)


def test_blocks_of_queries_change_nothing():
    x = np.random.default_rng(0).standard_normal((300, D))
    for attention in (
        ATTENTION,
        dataclasses.replace(ATTENTION, bias=(Alibi(), near), source=SelfKV(), softmax=Softmax(1.0, cap=3.0)),
    ):
        params = toys.values(attention.spec(D))
        blocked, whole = (run(attention, params, x, [170, 130], kernel) for kernel in ("blocked_bias", "reference"))
        np.testing.assert_allclose(blocked, whole, atol=1e-5)
