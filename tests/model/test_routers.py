"""Routers against transcriptions of their papers, a token at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.adapt.surgery.experts import KeepExperts
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.model.moe.dispatch import Dropless
from lm.model.moe.hash import Hash
from lm.model.moe.sparse_mixer import SparseMixer
from lm.model.moe.top_k import Groups, TopK
from tests import toys
from tests.toys import D

B, S, E = 2, 40, 6
KEY = jax.random.key(3)
seeds = st.integers(0, 10**6)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits_of(seed: int, experts: int = E, wide: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, wide, (B, S, experts)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def called(router, p, x, experts: int, ctx: Ctx):
    return router(p, x, jnp.ones(x.shape[:2], bool), experts, ctx)


def routed(router, logits: np.ndarray, p=None, key=None):
    """The routing by these logits: tokens are their logits, and the router's matrix is the identity."""
    return called(router, {"w": np.eye(logits.shape[-1])} | (p or {}), logits, logits.shape[-1], Ctx(key=key))


def agree(routing, weights, experts, atol=1e-6):
    assert np.asarray(routing.experts).tolist() == np.asarray(experts).tolist()
    np.testing.assert_allclose(routing.weights, weights, atol=atol)


@settings(max_examples=10)
@given(seeds)
def test_switch_jitters_its_input_in_training_alone(seed):
    logits, router = logits_of(seed), TopK(jitter=0.25)
    p = softmax(logits)
    agree(routed(router, logits), p.max(-1, keepdims=True), p.argmax(-1)[..., None])
    noisy = np.asarray(routed(router, logits, key=KEY).logits) / logits
    assert noisy.min() >= 0.7499 and noisy.max() <= 1.2501 and noisy.std() == pytest.approx(0.5 / 12**0.5, rel=0.2)


def test_gshard_uses_a_second_expert_as_often_as_twice_its_weight():
    """Algorithm 1: g1 and g2 add up to one, and where 2 g2 is less than a random number there is no second."""
    logits = np.tile([[[1.0, 0.2, -2.0]]], (B, 4000, 1)).astype(np.float32)
    router = TopK(k=2, normalize=1.0, later="random")
    routing = routed(router, logits, key=KEY)
    g1, g2 = softmax(logits[0, 0, :2])
    np.testing.assert_allclose(routing.weights, np.broadcast_to([g1, g2], (B, 4000, 2)), rtol=1e-5)
    assert routing.valid[..., 0].all() and 2 * g2 < 1
    assert routing.valid[..., 1].mean() == pytest.approx(2 * g2, abs=0.02)
    assert np.asarray(routing.stats.load).tolist() == [[4000, n, 0] for n in routing.valid[..., 1].sum(1).tolist()]
    assert routed(router, logits).valid.all(), "evaluation uses both"
    close = np.tile([[[1.0, 1.0, -2.0]]], (B, 50, 1)).astype(np.float32)
    assert routed(router, close, key=KEY).valid.all(), "as good as the first: always"


@settings(max_examples=10)
@given(seeds, st.sampled_from([1.0, 2.0, 3.0]))
def test_mixtral_and_dbrx_normalize_the_chosen(seed, p):
    logits = logits_of(seed)
    order = np.argsort(-logits)[..., :3]
    top = np.take_along_axis(softmax(logits), order, -1)
    agree(routed(TopK(k=3, normalize=p), logits), top / ((top**p).sum(-1, keepdims=True) ** (1 / p)), order)
    agree(routed(TopK(k=3), logits), top, order)  # Grok-1
    if p == 1:  # GPT-OSS: the k highest logits first, then a softmax over them
        chosen_first = softmax(np.take_along_axis(logits, order, -1))
        agree(routed(TopK(k=3, normalize=1.0), logits), chosen_first, order)


@settings(max_examples=10)
@given(seeds)
def test_deepseek_v2_takes_experts_of_the_groups_with_the_best_one(seed):
    logits = logits_of(seed, 8)
    scores = softmax(logits)
    routing = routed(TopK(k=3, scale=16.0, groups=Groups(4, kept=2)), logits)
    weights, experts, sent = np.zeros((B, S, 3)), np.zeros((B, S, 3), int), np.zeros((B, 4))
    for at in np.ndindex(B, S):
        groups = np.argsort(-scores[at].reshape(4, 2).max(-1))[:2]
        masked = np.where(np.isin(np.arange(8) // 2, groups), scores[at], 0)
        experts[at] = np.argsort(-masked)[:3]
        weights[at] = 16 * masked[experts[at]]
        sent[at[0], np.unique(experts[at] // 2)] += 1
    agree(routing, weights, experts, 1e-5)
    np.testing.assert_allclose(routing.stats.sent, sent / 2)


@settings(max_examples=10)
@given(seeds)
def test_deepseek_v3_chooses_with_its_bias_and_weighs_without(seed):
    logits = logits_of(seed, 8)
    bias = np.random.default_rng(seed + 1).normal(0, 0.3, 8).astype(np.float32)
    router = toys.balanced(k=3, scale=2.5, groups=Groups(2, kept=1, best=2))
    routing = routed(router, logits, {"balance": bias})
    scores = 1 / (1 + np.exp(-logits))
    weights, experts = np.zeros((B, S, 3)), np.zeros((B, S, 3), int)
    for at in np.ndindex(B, S):
        biased = scores[at] + bias
        best = np.argmax(np.sort(biased.reshape(2, 4))[:, -2:].sum(-1))
        experts[at] = np.argsort(-np.where(np.arange(8) // 4 == best, biased, -np.inf))[:3]
        weights[at] = 2.5 * scores[at][experts[at]] / scores[at][experts[at]].sum()
    agree(routing, weights, experts, 1e-5)


def sparse_mixer(s: np.ndarray, slack: float) -> tuple[list, list]:
    """GRIN's choice for one token in evaluation."""
    left, weights, experts = s.copy(), [], []
    for _ in range(2):
        m = left.max()
        near = ((m - s) / np.maximum(np.abs(s), m) <= 2 * slack) & np.isfinite(left)
        experts.append(int(left.argmax()))
        weights.append(float(np.exp(m) / np.exp(s[near]).sum()))
        left[experts[-1]] = -np.inf
    return weights, experts


@settings(max_examples=20)
@given(seeds, st.sampled_from([0.01, 0.2, 1.0]))
def test_sparse_mixer_takes_the_best_of_those_that_are_near(seed, slack):
    logits = logits_of(seed)
    found = [[sparse_mixer(token, slack) for token in row] for row in logits]
    weights, experts = ([[token[i] for token in row] for row in found] for i in (0, 1))
    agree(routed(SparseMixer(slack), logits), weights, experts, 1e-5)


def test_sparse_mixer_draws_in_training_and_passes_the_gradient_of_the_draw():
    s, n, slack = np.array([1.0, 1.2, 0.7, -1.0], np.float32), 20000, 0.3
    logits = np.tile(s, (1, n, 1))
    near = np.array([True, True, True, False])  # (1.2 - 0.7) / 1.2 <= 0.6
    p = np.where(near, np.exp(s), 0) / np.exp(s[near]).sum()

    def first(logits):
        routing = routed(SparseMixer(slack), logits, key=KEY)
        return routing.weights[..., 0].sum(), routing

    grads, routing = jax.jit(jax.grad(first, has_aux=True))(logits)
    drawn, weights = np.asarray(routing.experts[0, :, 0]), np.asarray(routing.weights[0, :, 0])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, p, atol=0.015)
    share = weights / p[drawn]
    np.testing.assert_allclose(np.unique(share.round(3)), [0.333, 1])
    assert (share[drawn == 1] > 0.99).all(), "the best keeps its weight"
    assert (share[drawn != 1] > 0.99).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(grads[0], p[drawn][:, None] * (np.eye(4)[drawn] - p), atol=1e-5)
    assert (routing.experts[..., 0] != routing.experts[..., 1]).all()


def mixed(x: int) -> int:
    """The map, fixed for ever: trained models depend on it."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)


def test_hash_sends_a_token_where_it_always_goes():
    ids = np.random.default_rng(0).permutation(4096).astype(np.int32).reshape(2, 2048)
    router = Hash(k=2)
    assert router.spec(D, 8) == {}

    def experts(router, ids, layer=0, **rows):
        ctx = Ctx(rows={"tokens": ids, **rows}, layer=layer)
        return called(router, {}, np.ones((*ids.shape, D)), 8, ctx)

    routing = experts(router, ids)
    assert (routing.weights == 1).all()
    shuffled = experts(router, ids[::-1, ::-1])
    assert (shuffled.experts == routing.experts[::-1, ::-1]).all(), "whatever its place"
    np.testing.assert_allclose(routing.stats.load.sum(0), 2 * 4096 / 8, rtol=0.1)
    pairs = np.histogram2d(*np.asarray(routing.experts).reshape(-1, 2).T, bins=8)[0]
    np.testing.assert_allclose(pairs, 4096 / 64, rtol=0.5)  # choices are independent
    for other in (experts(router, ids, layer=1), experts(Hash(k=2, seed=1), ids)):
        assert (other.experts == routing.experts).mean() == pytest.approx(1 / 8, abs=0.03)
    few = [[0, 1, 2, 50256]] * 2
    assert experts(Hash(seed=3), np.array(few), 5).experts[0, :, 0].tolist() == [
        mixed(mixed(token) ^ mixed(mixed(mixed(3) + 5))) % 8 for token in few[0]
    ]


def test_random_routed_experts_are_those_of_the_domain():
    """PanGu-Sigma: another domain moves a token to the same place of another group."""
    ids = np.tile(np.arange(64), (3, 1))
    ctx = Ctx(rows={"tokens": ids, "source": np.array([0, 2, 1])})
    routing = called(Hash(domains=3), {}, np.ones((3, 64, D)), 12, ctx)
    experts = np.asarray(routing.experts[..., 0])
    assert (experts // 4 == [[0], [2], [1]]).all() and (experts % 4 == experts[0]).all()
    assert len(set(experts[0].tolist())) == 4
    alone = called(Hash(), {}, np.ones((1, 64, D)), 4, Ctx(rows={"tokens": ids[:1]}))
    assert (alone.experts[0, :, 0] == experts[0]).all(), "a domain's experts are a smaller model's"


def test_a_domain_is_a_model_of_its_own():
    model = toys.language_model([toys.block(toys.attention(), toys.experts(Hash(k=2, domains=2), Dropless()))] * 2)
    params, tokens = toys.values(model.spec()), toys.tokens(2)
    whole, _, _ = toys.forward(model, params, {"tokens": tokens, "source": jnp.array([1, 0])})
    for row, experts in enumerate(((2, 3), (0, 1))):
        keep = KeepExperts((experts,))
        alone = keep.model(model)
        assert alone.body.stack.blocks()[0].parts[1][1].router == Hash(k=2)
        kept = keep.params(model, alone, params, KEY)
        toys.close(toys.forward(alone, kept, {"tokens": tokens})[0][row], whole[row])
    with pytest.raises(UserError, match="Hash needs all 2 experts of a domain, in their order"):
        KeepExperts(((0, 2),)).model(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(k=7).spec(D, 6), "router.k=7 exceeds experts=6: lower k"),
        (lambda: TopK(groups=Groups(4, 1)).spec(D, 6), "groups.number=4 does not divide experts=6: choose a divisor"),
        (lambda: TopK(groups=Groups(2, 3)).spec(D, 6), "groups.kept=3 exceeds groups.number=2: lower it"),
        (lambda: TopK(groups=Groups(3, 2, best=3)).spec(D, 6), "groups.best=3 exceeds the 2 experts of a group"),
        (lambda: TopK(k=3, groups=Groups(3, 1)).spec(D, 6), "router.k=3 exceeds the 2 experts of the groups.kept=1"),
        (lambda: TopK(later="none"), "router.later='none' is not among all, random"),
        (lambda: TopK(score="relu"), "router.score='relu' is not among softmax, sigmoid"),
        (lambda: Hash(domains=4).spec(D, 6), "router.domains=4 does not divide experts=6: choose a divisor"),
        (lambda: SparseMixer().spec(D, 1), "router.k=2 exceeds experts=1"),
    ],
)
def test_what_routers_cannot_do_is_said(make, message):
    with pytest.raises(UserError, match=message):
        make()
