"""Conditional computation against a plain transcription of the papers' equations, token by token."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import BucketedBias
from lm.model.kv_sources import CrossKV
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import GatedMLP
from lm.model.special.conditional import ConditionalAttention, ConditionalMLP, SoftTopK
from tests import toys

D, SIZE, LENGTH, RADIUS = 8, 3, 13, 2
WIDE = Normal(0.5)
ROUTER = SoftTopK(every=4, epsilon=0.7, steps=60, init=WIDE)
# One bias per head and distance, whose table the test reads at key minus query + FAR.
FAR = 15
light_bias, heavy_bias = (BucketedBias(None, 4 * FAR, 4 * FAR, True, WIDE) for _ in range(2))
ATTENTION = ConditionalAttention(
    light=Attention(
        2,
        SIZE,
        mask=Window(RADIUS + 1, RADIUS + 1),
        bias=(light_bias,),
        softmax=Softmax(1.0),
        projections=Projections(init=WIDE),
    ),
    heavy=Attention(
        3,
        SIZE,
        mask=Bidirectional(),
        bias=(heavy_bias,),
        softmax=Softmax(1.0),
        source=CrossKV("routed"),
        projections=Projections(init=WIDE),
    ),
    queries=ROUTER,
    keys=SoftTopK(every=2, epsilon=0.7, steps=60, init=WIDE),
)
MLP = ConditionalMLP(GatedMLP(5, "relu", init=WIDE), GatedMLP(11, "relu", init=WIDE), ROUTER)


def soft_top_k(s: np.ndarray, k: int, epsilon: float, steps: int) -> np.ndarray:
    """Appendix of arXiv 2304.04947: a and b in turn, then exp((s + a + b) / epsilon)."""
    b = [-x for x in s]
    for _ in range(steps):
        total = sum(math.exp((x + y) / epsilon) for x, y in zip(s, b, strict=True))
        a = epsilon * math.log(k) - epsilon * math.log(total)
        b = [min(-x - a, 0.0) for x in s]
    return np.array([math.exp((x + a + y) / epsilon) for x, y in zip(s, b, strict=True)])


def routed(p: dict, x: np.ndarray, router: SoftTopK) -> dict[int, float]:
    """place -> weight of the tokens that a router picks from x [n, d]."""
    s = np.array([float(row @ p["u"][:, 0]) for row in x])
    k = max(len(x) // router.every, 1)
    weights = soft_top_k(s, k, router.epsilon, router.steps)
    return {int(i): weights[i] for i in np.argsort(-s)[:k]}


def gated(p: dict, x: np.ndarray) -> np.ndarray:
    return (np.maximum(x @ p["gate"]["w"], 0) * (x @ p["up"]["w"])) @ p["down"]["w"]


def attended(p: dict, i: int, query: np.ndarray, keys: dict[int, np.ndarray], heads: int) -> np.ndarray:
    """What token i reads from keys {place: input}."""
    read = []
    for h in range(heads):
        part = slice(h * SIZE, (h + 1) * SIZE)
        scores = []
        for j, key in keys.items():
            ahead = j - i  # distances below a quarter of the buckets have one each
            bucket = abs(ahead) + (2 * FAR if ahead > 0 else 0)
            bias = p["terms"]["0"]["w"][bucket, h]
            scores.append((query @ p["q"]["w"])[part] @ (key @ p["k"]["w"])[part] + bias)
        probs = np.exp(scores - np.max(scores))
        probs = probs / probs.sum()
        read.append(sum(w * (key @ p["v"]["w"])[part] for w, key in zip(probs, keys.values(), strict=True)))
    return np.concatenate(read) @ p["o"]["w"]


def values(part: ConditionalMLP | ConditionalAttention) -> tuple[dict, dict]:
    params = toys.values(part.spec(D))
    return params, jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def run(part: ConditionalMLP | ConditionalAttention, params: dict, x: np.ndarray, segments: np.ndarray | None = None):
    rows = {"positions": jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])}
    rows |= {} if segments is None else {"segments": jnp.asarray(segments)}
    return part(params, jnp.asarray(x, jnp.float32), Ctx(rows=rows), None, {})[0]


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, LENGTH, D))


def test_conditional_mlp(x):
    params, p = values(MLP)
    wanted = np.zeros_like(x)
    for b, row in enumerate(x):
        picked = routed(p["router"], row, ROUTER)
        assert len(picked) == 3
        for i, token in enumerate(row):
            wanted[b, i] = gated(p["light"], token) + picked.get(i, 0.0) * gated(p["heavy"], token)
    np.testing.assert_allclose(run(MLP, params, x), wanted, atol=1e-5, rtol=1e-5)


def test_conditional_attention(x):
    params, p = values(ATTENTION)
    wanted = np.zeros_like(x)
    for b, row in enumerate(x):
        queries, keys = routed(p["queries"], row, ATTENTION.queries), routed(p["keys"], row, ATTENTION.keys)
        assert len(queries) == 3
        assert len(keys) == 6
        for i, token in enumerate(row):
            near = {j: row[j] for j in range(LENGTH) if abs(i - j) <= RADIUS}
            wanted[b, i] = attended(p["light"], i, token, near, 2)
            if i in queries:
                seen = {j: weight * row[j] for j, weight in keys.items()}
                wanted[b, i] += queries[i] * attended(p["heavy"], i, token, seen, 3)
    np.testing.assert_allclose(run(ATTENTION, params, x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", [MLP, ATTENTION], ids=["mlp", "attention"])
def test_padding_is_not_routed(part, x):
    params, _ = values(part)
    padded = np.concatenate([x, 9 * np.ones((2, 7, D))], axis=1)
    segments = (np.arange(LENGTH + 7) < LENGTH) * np.ones((2, 1), np.int32)
    got = run(part, params, padded, segments)
    np.testing.assert_allclose(got[:, :LENGTH], run(part, params, x), atol=1e-5)
    assert np.isfinite(got).all()


def test_weights_add_up_to_k():
    s = jnp.asarray(np.random.default_rng(0).standard_normal((2, 50)), jnp.float32)
    router = SoftTopK(epsilon=0.1, steps=200)
    weights = router.weights(s, jnp.ones_like(s, bool), jnp.full((2, 1), 7.0))
    np.testing.assert_allclose(weights.sum(1), 7.0, rtol=1e-3)
    assert (weights >= 0).all()
    assert (weights <= 1 + 1e-6).all()


def test_slack_routes_more():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 32, D)), jnp.float32)
    params = toys.values(ROUTER.spec(D))
    few, more = (SoftTopK(every=4, slack=slack)(params, x, Ctx()) for slack in (1.0, 1.5))
    assert few.indices.shape[1] == 8
    assert more.indices.shape[1] == 12
    np.testing.assert_array_equal(few.weights, more.weights[:, :8])


def test_every_part_gets_a_gradient(x):
    for part in (MLP, ATTENTION):
        params, _ = values(part)
        gradient = jax.grad(lambda p, part=part: jnp.square(run(part, p, x)).sum())(params)
        for leaf in jax.tree.leaves(gradient):
            assert np.isfinite(leaf).all()
            assert np.abs(leaf).max() > 0


def test_decoding_is_refused():
    with pytest.raises(UserError, match="encoder"):
        MLP.cache(D, toys.shape(1))
