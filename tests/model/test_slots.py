"""Routers that spread tokens evenly: experts that take tokens, mixtures of tokens, balanced assignments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from lm.core.component import from_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import aux_metrics, values
from lm.model.cache import CacheShape
from lm.model.mlp import MLP
from lm.model.moe.balanced import Auction, BalancedAssignment, Sinkhorn
from lm.model.moe.dispatch import Capacity, RouterSlots
from lm.model.moe.expert_choice import ExpertChoice, SoftMixture
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.objectives.causal import NextToken, seen_ahead
from tests import toys
from tests.toys import D

E, S = 3, 10
KEY = jax.random.key(5)
seeds = st.integers(0, 10**6)
rows = st.lists(st.integers(0, 2), min_size=2 * S, max_size=2 * S)


def layer(router, dispatch=RouterSlots(), experts: int = E) -> MoE:
    return MoE(experts, MLP(5, activation="relu"), router, dispatch)


@functools.partial(jax.jit, static_argnums=0)
def call(moe: MoE, p, x, segments, key=None):
    out: dict = {}
    y, _ = moe(p, x, Ctx(key=key, rows={"segments": segments}), None, out)
    return y, out["router"]


def expert(p, e: int, x: np.ndarray) -> np.ndarray:
    up, down = p["experts"]["up"], p["experts"]["down"]
    return np.maximum(x @ up["w"][e] + up["b"][e], 0) @ down["w"][e] + down["b"][e]


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def example(moe: MoE, seed: int, segments):
    x = np.random.default_rng(seed).standard_normal((2, S, D)).astype(np.float32)
    return jax.tree.map(np.asarray, toys.values(moe.spec(D), seed)), x, np.array(segments, np.int32).reshape(2, S)


CHOICES = [layer(ExpertChoice(2.0)), layer(ExpertChoice(0.5, group=4)), layer(ExpertChoice(9.0, group=3))]


@settings(max_examples=15)
@given(st.sampled_from(CHOICES), seeds, rows)
def test_each_expert_takes_the_tokens_that_want_it_most(moe, seed, segments):
    p, x, segments = example(moe, seed, segments)
    y, stats = call(moe, p, x, segments)
    n = moe.router.group or S
    capacity = min(n, int(np.ceil(moe.router.factor * n / E)))
    want, load, taken = np.zeros_like(x), np.zeros((2, E)), np.zeros((2, S))
    for row in range(2):
        for start in range(0, S, n):
            group = [t for t in range(start, min(start + n, S)) if segments[row, t]]
            probs = softmax(x[row] @ p["router"]["w"])
            for e in range(E):
                for t in sorted(group, key=lambda t: -probs[t, e])[:capacity]:
                    want[row, t] += probs[t, e] * expert(p, e, x[row, t])
                    load[row, e] += 1
                    taken[row, t] += 1
    toys.close(y, want, atol=1e-4)
    toys.close(stats.load, load)
    toys.close(stats.dropped, ((taken == 0) & (segments > 0)).sum(1).astype(np.float32))
    if segments.any():
        assert values(aux_metrics({"router": jax.tree.map(lambda x: x[None], stats)}))["router_dropped"] <= 1


MIXTURES = [layer(SoftMixture()), layer(SoftMixture(2, group=4, scale=3.0))]


@settings(max_examples=10)
@given(st.sampled_from(MIXTURES), seeds, rows)
def test_slots_hold_mixtures_of_tokens(moe, seed, segments):
    """Algorithm 1 of the paper with the normalised logits of its section 2.3, in each group."""
    p, x, segments = example(moe, seed, segments)
    y, stats = call(moe, p, x, segments)
    n, want = moe.router.group or S, np.zeros_like(x)
    phi = p["router"]["phi"]  # [D, P, E]
    phi = p["router"]["scale"] * phi / np.linalg.norm(phi, axis=0)
    for row in range(2):
        for start in range(0, S, n):
            group = [t for t in range(start, min(start + n, S)) if segments[row, t]]
            if not group:
                continue
            tokens = x[row, group]
            logits = np.einsum("nd,dpe->nep", tokens / np.linalg.norm(tokens, axis=1, keepdims=True), phi)
            slots = np.einsum("nd,nep->epd", tokens, softmax(logits, 0))
            made = np.stack([expert(p, e, slots[e]) for e in range(E)])
            back = softmax(logits.reshape(len(group), -1)).reshape(logits.shape)
            want[row, group] = np.einsum("epd,nep->nd", made, back)
    toys.close(y, want, atol=1e-4)
    toys.close(stats.load.sum(-1), (segments > 0).sum(1).astype(np.float32))


@pytest.mark.parametrize("router", [ExpertChoice(1.0), SoftMixture()], ids=lambda r: type(r).__name__)
def test_a_later_token_changes_an_earlier_ones_output(router):
    """The caveat of these routers: they are for encoders, and a decoder with them says so."""
    moe = layer(router)
    p, x, segments = example(moe, 0, [1] * 2 * S)
    other = x.copy()
    other[:, -1] += 3.0
    y, changed = (np.asarray(call(moe, p, given, segments)[0]) for given in (x, other))
    assert toys.differ(y[:, :-1], changed[:, :-1])
    causal = layer(TopK(), Capacity(9.0))
    p, *_ = example(causal, 0, [1] * 2 * S)
    y, changed = (np.asarray(call(causal, p, given, segments)[0]) for given in (x, other))
    assert not toys.differ(y[:, :-1], changed[:, :-1])

    decoder = toys.language_model([toys.block(toys.attention(), moe)])
    assert not decoder.causal and toys.language_model([toys.block(toys.attention(), causal)]).causal
    (note,) = seen_ahead(NextToken(), decoder)
    assert note.startswith(f"{type(router).__name__} looks at tokens that follow")
    with pytest.raises(UserError, match="looks at the whole text and cannot decode token by token"):
        decoder.cache(CacheShape(1, 4))


@functools.partial(jax.jit, static_argnums=0)
def assigned(assignment, scores: np.ndarray, valid: np.ndarray) -> jax.Array:
    return assignment(scores, valid)


def auctioned(scores: np.ndarray, valid: np.ndarray, **knobs) -> np.ndarray:
    return np.asarray(assigned(Auction(**knobs), scores, valid))


@settings(max_examples=25)
@given(seeds, st.integers(1, 24), st.sampled_from([1, 2, 5]))
def test_an_auction_comes_near_the_best_assignment(seed, n, experts):
    rng = np.random.default_rng(seed)
    scores = np.zeros((24, experts), np.float32)
    scores[:n] = rng.standard_normal((n, experts))
    valid = np.arange(24) < n
    found = auctioned(scores, valid, step=0.002, rounds=3000)[:n]
    places = -(-24 // experts)
    assert np.bincount(found, minlength=experts).max() <= places
    columns = np.repeat(np.arange(experts), places)
    at, to = linear_sum_assignment(scores[:n][:, columns], maximize=True)
    best, ours = scores[at, columns[to]].sum(), scores[np.arange(n), found].sum()
    assert best - ours <= n * 0.002 * np.ptp(scores[:n]) + 1e-4


def test_an_auction_that_is_cut_short_leaves_no_token_without_an_expert():
    scores = np.tile(np.float32([3.0, 1.0, 0.0]), (12, 1))  # all want the same
    found = auctioned(scores, np.arange(12) < 11, rounds=1)
    assert sorted(np.bincount(found[:11], minlength=3).tolist()) == [3, 4, 4]


def test_sinkhorn_evens_out_what_all_want():
    scores = np.random.default_rng(0).normal(0, 1, (600, 4)).astype(np.float32) + np.float32([2, 0, 0, -1])
    valid = np.arange(600) < 512
    greedy, found = scores.argmax(1)[valid], np.asarray(assigned(Sinkhorn(30), scores, valid))[valid]
    assert np.bincount(greedy).max() > 300 and np.abs(np.bincount(found, minlength=4) - 128).max() < 30


@pytest.mark.parametrize(
    "router",
    [BalancedAssignment(group=5), BalancedAssignment(Sinkhorn(), "softmax"), BalancedAssignment(score=None, group=5)],
)
def test_training_balances_and_evaluation_takes_the_best(router):
    moe = layer(router, Capacity(1.0, group=5), experts=5)
    p, x, segments = example(moe, 0, [1] * 2 * S)
    x = x + 0.5  # so that some experts are wanted more
    logits = x @ p["router"]["w"]
    scores = {"sigmoid": 1 / (1 + np.exp(-logits)), "softmax": softmax(logits), None: np.ones_like(logits)}
    score = scores[router.score]
    y, stats = call(layer(router, Capacity(9.0), 5), p, x, segments)
    best = logits.argmax(-1)
    want = [[score[b, t, e] * expert(p, e, x[b, t]) for t, e in enumerate(row)] for b, row in enumerate(best)]
    toys.close(y, np.array(want), atol=1e-4)
    toys.close(stats.load, np.stack([np.bincount(row, minlength=5) for row in best]).astype(np.float32))
    _, trained = call(moe, p, x, segments, KEY)
    if isinstance(router.assignment, Auction):
        assert (trained.load == S / 5).all() and not trained.dropped.any()
    assert trained.load.std() < stats.load.std()

    def weights(w):
        ctx = Ctx(key=KEY)
        return router({"w": w}, jnp.asarray(x), jnp.ones((2, S), bool), 5, ctx).weights.sum()

    assert (np.abs(jax.jit(jax.grad(weights))(p["router"]["w"])).max() > 0) == (router.score is not None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_dict({"type": "ExpertChoice", "group": 0}), "model.group=0 must be at least 1"),
        (lambda: from_dict({"type": "ExpertChoice", "factor": 0.0}), "model.factor=0.0 must be greater than 0"),
        (lambda: from_dict({"type": "SoftMixture", "slots": 0}), "model.slots=0 must be at least 1"),
        (lambda: from_dict({"type": "Capacity", "group": 0}), "model.group=0 must be at least 1"),
        (
            lambda: layer(ExpertChoice(), Capacity()),
            "ExpertChoice fills the experts' slots itself: let dispatch be Rou",
        ),
        (
            lambda: layer(TopK(), RouterSlots()),
            "TopK does not fill the experts' slots itself: let dispatch be Capacity",
        ),
        (lambda: BalancedAssignment(score="relu"), "router.score='relu' is not among softmax, sigmoid"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(UserError, match=message):
        make()
