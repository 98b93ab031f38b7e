"""Routing against a loop over tokens, and the balance buffer that no gradient moves."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.component import canonical, from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import aux_losses, aux_metrics, values
from lm.model.mlp import MLP
from lm.model.moe.dispatch import Capacity, Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.stats import RouterStats
from lm.model.moe.top_k import Groups, TopK
from tests import toys
from tests.toys import D

LENGTH, EXPERTS = 7, 3


@functools.partial(jax.jit, static_argnums=0)
def call(layer: MoE, p, x, segments):
    out: dict = {}
    y, _ = layer(p, x, Ctx(rows={"segments": segments}), None, out)
    return y, out["router"]


def one_expert(p, e: int, x: np.ndarray) -> np.ndarray:
    up, down = p["experts"]["up"], p["experts"]["down"]
    return np.maximum(x @ up["w"][e] + up["b"][e], 0) @ down["w"][e] + down["b"][e]


def scored(router: TopK, p, logits: np.ndarray):
    """Scores of one token's experts, the experts in the order in which they are chosen, and probabilities."""
    if router.score == "sigmoid":
        score = 1 / (1 + np.exp(-logits))
        probs = score / score.sum()
    else:
        score = probs = np.exp(logits) / np.exp(logits).sum()
    merit = score + p.get("balance", 0)
    if router.groups:
        members = np.split(np.arange(len(merit)), router.groups.number)
        quality = [np.sort(merit[g])[-router.groups.best :].sum() for g in members]
        kept = np.argsort(-np.array(quality))[: router.groups.kept]
        merit = np.where(np.isin(np.arange(len(merit)), np.concatenate([members[g] for g in kept])), merit, -np.inf)
    return score, np.argsort(-merit), probs


def naive(layer: MoE, p, x: np.ndarray, segments: np.ndarray):
    """One token after the other: outputs, and the statistics by row."""
    k, e = layer.router.k, layer.experts
    y = np.zeros_like(x)
    stats = {n: np.zeros((len(x), e)) for n in ("load", "prob", "first")}
    stats |= {n: np.zeros(len(x)) for n in ("z", "dropped", "tokens", "entropy")}
    groups = layer.router.groups
    if groups:
        stats["sent"] = np.zeros((len(x), groups.number))
    if layer.router.rate:
        stats["scored"] = np.zeros((len(x), e))
    n = capacity = x.shape[1]
    if isinstance(layer.dispatch, Capacity):
        n = min(layer.dispatch.group or n, n)
        capacity = min(n, layer.dispatch.slots or math.ceil(layer.dispatch.factor * k * n / e))
    for row in range(len(x)):
        for start in range(0, x.shape[1], n):
            group = [t for t in range(start, min(start + n, x.shape[1])) if segments[row, t] > 0]
            choices = {}
            for t in group:
                logits = x[row, t] @ p["router"]["w"] + p["router"].get("b", 0)
                score, order, probs = scored(layer.router, p["router"], logits)
                weights = score[order[:k]]
                norm = (
                    (weights**layer.router.normalize).sum() ** (1 / layer.router.normalize)
                    if layer.router.normalize
                    else 1
                )
                choices[t] = (order[:k], layer.router.scale * weights / norm)
                stats["prob"][row] += probs
                stats["z"][row] += np.log(np.exp(logits).sum()) ** 2
                stats["tokens"][row] += 1
                stats["entropy"][row] -= (probs * np.log(probs)).sum()
                stats["first"][row, order[0]] += 1
                if groups:
                    stats["sent"][row, np.unique(order[:k] // (e // groups.number))] += 1 / groups.kept
                if layer.router.rate:
                    stats["scored"][row, np.argsort(-score)[:k]] += 1
            used = np.zeros(e)
            for choice in range(k):  # every first choice before any second one, earlier tokens first
                for t in group:
                    expert, weight = (c[choice] for c in choices[t])
                    stats["load"][row, expert] += 1
                    if used[expert] < capacity:
                        used[expert] += 1
                        y[row, t] += weight * one_expert(p, expert, x[row, t])
                    else:
                        stats["dropped"][row] += 1
    return y, stats


def layer(router, dispatch=Capacity(1.0), experts: int = EXPERTS) -> MoE:
    return MoE(experts, MLP(5, activation="relu"), router, dispatch)


LAYERS = [
    layer(TopK(k=1)),
    layer(TopK(k=2, normalize=1.0), Capacity(1.0, group=3)),
    layer(toys.balanced(k=2), Capacity(1.0, group=7)),
    layer(toys.balanced(k=3, normalize=None), Capacity(group=20, slots=4)),
    layer(toys.balanced(k=2), Dropless()),
    layer(TopK(k=2, normalize=2.0, groups=Groups(3, kept=2), bias=True), Dropless(), experts=6),  # DeepSeek-V2's groups
    layer(toys.balanced(k=4, groups=Groups(3, kept=2, best=2), scale=2.5), Dropless(), experts=9),  # V3's
]


rows = st.lists(st.integers(0, 2), min_size=2 * LENGTH, max_size=2 * LENGTH)


@settings(max_examples=20)
@given(st.sampled_from(LAYERS), st.integers(0, 10**6), rows)
def test_routing_equals_a_loop_over_tokens(layer, seed, segments):
    x = np.random.default_rng(seed).standard_normal((2, LENGTH, D)).astype(np.float32)
    segments = np.array(segments, np.int32).reshape(2, LENGTH)
    p = jax.tree.map(np.asarray, toys.values(layer.spec(D), seed))
    y, stats = call(layer, p, x, segments)
    expected, counted = naive(layer, p, x, segments)
    toys.close(y, expected, atol=1e-4)
    toys.close({name: x for name, x in vars(stats).items() if x is not None}, counted, atol=1e-4)


def test_a_row_is_routed_by_itself():
    """Hence microbatches route alike; with a group that divides, so do parts of a row."""
    moe = layer(TopK(k=2), Capacity(group=2, slots=1))
    p = toys.values(moe.spec(D))
    x, segments = jax.random.normal(jax.random.key(0), (4, 8, D)), jnp.ones((4, 8), jnp.int32)
    y, stats = call(moe, p, x, segments)
    assert stats.dropped.sum() > 0
    rows = [call(moe, p, x[i : i + 2], segments[i : i + 2]) for i in (0, 2)]
    toys.close(jnp.concatenate([r[0] for r in rows]), y)
    toys.close(jax.tree.map(lambda *r: jnp.concatenate(r), *(r[1] for r in rows)), stats)
    parts = [call(moe, p, x[:, i : i + 4], segments[:, i : i + 4]) for i in (0, 4)]
    toys.close(jnp.concatenate([r[0] for r in parts], axis=1), y)


def test_balance_steers_the_choice_and_nothing_else():
    moe = layer(toys.balanced(normalize=None), Capacity(3.0))
    p, ones = toys.values(moe.spec(D)), jnp.ones((2, LENGTH), jnp.int32)
    x = jax.random.normal(jax.random.key(0), (2, LENGTH, D))

    def balanced(balance):
        return p | {"router": p["router"] | {"balance": jnp.asarray(balance)}}

    y, stats = call(moe, p, x, ones)
    shifted = balanced(p["router"]["balance"] + 5.0)
    toys.close(call(moe, shifted, x, ones), (y, stats))
    forced, loads = call(moe, balanced([0.0, 9.0, 0.0]), x, ones)
    assert loads.load.tolist() == [[0, LENGTH, 0]] * 2
    weight = jax.nn.sigmoid(x @ p["router"]["w"])[..., 1:2]
    toys.close(forced, weight * one_expert(jax.tree.map(np.asarray, p), 1, np.asarray(x)))
    grads = jax.jit(jax.grad(lambda p: jnp.square(call(moe, p, x, ones)[0]).sum()))(p)
    assert (np.asarray(grads["router"]["balance"]) == 0).all()
    assert np.abs(grads["router"]["w"]).max() > 0


def test_updates_even_out_the_loads():
    moe = layer(toys.balanced(rate=0.02), Capacity(3.0))
    p, ones = toys.values(moe.spec(D)), jnp.ones((16, LENGTH), jnp.int32)
    x = jax.random.normal(jax.random.key(0), (16, LENGTH, D)) + 1.0
    spread = []
    for _ in range(60):
        _, stats = call(moe, p, x, ones)
        spread.append(float(stats.load.sum(0).std()))
        p = moe.update(p, {"router": stats})
    assert spread[0] > 4 * np.mean(spread[-5:])


def test_a_model_moves_its_balance_buffers_and_no_other_parameter():
    model = toys.dense_first()
    params = toys.values(model.spec())
    _, _, out = toys.forward(model, params, {"tokens": toys.tokens(2)})
    after = model.update(params, out)
    rate, kinds = 0.01, dict(toys.flatten(model.spec()))
    for (path, new), (_, old) in zip(toys.flatten(after), toys.flatten(params), strict=True):
        if kinds[path].kind == "buffer":
            load = np.asarray(out["1"]["0"]["mlp"]["router"].load).sum(1)  # [layers, E]
            toys.close(new, old + rate * np.sign(load.mean(-1, keepdims=True) - load))
        else:
            assert new is old or (np.asarray(new) == np.asarray(old)).all()
    assert sum(p.kind == "buffer" for p in kinds.values()) == 1


def test_tied_layers_sum_their_loads():
    moe = toys.experts(toys.balanced(rate=0.5), Capacity(4.0))
    model = toys.language_model([toys.block(toys.attention(), moe)] * 2, tied=True)
    params = toys.values(model.spec())
    load = jnp.asarray(np.random.default_rng(0).permutation(16).reshape(2, 2, 4), jnp.float32)  # [layers, B, E]
    stats = RouterStats(load, load, *(load.sum(-1) for _ in range(4)), first=load)
    after = model.update(params, {"0": {"0": {"mlp": {"router": stats}}}})
    old, new = (p["body"]["stack"]["0"]["0"]["mlp"]["router"]["balance"] for p in (params, after))
    total = load.sum((0, 1))
    toys.close(new, old + 0.5 * np.sign(total.mean() - total))


def test_all_choices_are_served_by_gradients_too():
    """Sorted and multiplied by groups: what a capacity that drops nothing computes, padding and gradients included."""
    roomy, free = (toys.experts(TopK(k=2, init=toys.WIDE), d) for d in (Capacity(2.0), Dropless()))
    x, p = jax.random.normal(jax.random.key(0), (2, LENGTH, D)), toys.values(free.spec(D))
    segments = jnp.asarray([[1] * LENGTH, [1] * 4 + [0] * (LENGTH - 4)])

    def loss(moe: MoE):
        return jax.jit(jax.value_and_grad(lambda p, x: jnp.square(call(moe, p, x, segments)[0]).sum(), argnums=(0, 1)))

    toys.close(loss(free)(p, x), loss(roomy)(p, x))
    assert call(free, p, x, segments)[1].dropped.sum() == 0


def test_layers_stored_with_a_capacity_of_their_own_are_read():
    stored = to_dict(layer(TopK(), Capacity(1.5, group=4)))
    old = {k: v for k, v in stored.items() if k != "dispatch"} | {"capacity_factor": 1.5, "group": 4}
    assert from_dict(old) == from_dict(stored) and canonical(old) == canonical(stored) == stored
    assert from_dict({k: v for k, v in old.items() if k != "group"}).dispatch == Capacity(1.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer(TopK(k=4)).spec(D), "router.k=4 exceeds experts=3"),
        (lambda: MoE(2, MLP(4, dropout=0.5)), "expert.dropout=0.5 is not supported"),
        (lambda: Capacity(0.5), "capacity factor=0.5 is below 1, .* raise it, or say by slots"),
        (lambda: Capacity(math.nan), "capacity factor=nan is below 1"),
        (lambda: Capacity(slots=0), "capacity slots=0 must be at least 1"),
    ],
)
def test_what_experts_cannot_do_is_said(make, message):
    with pytest.raises(UserError, match=message):
        make()


def entropy(sums) -> float:
    p = np.array(sums) / np.sum(sums)
    return -float(p @ np.log(p))


def test_losses_and_metrics_of_what_a_router_did():
    """Two layers, two rows, two experts, by hand."""
    load = jnp.array([[[3.0, 1.0], [2.0, 2.0]], [[4.0, 0.0], [0.0, 0.0]]])  # [L, B, E]
    prob = jnp.array([[[2.0, 2.0], [1.0, 3.0]], [[3.0, 1.0], [0.0, 0.0]]])
    tokens, z = jnp.array([[4.0, 4.0], [4.0, 0.0]]), jnp.array([[1.0, 2.0], [3.0, 0.0]])
    stats = RouterStats(
        load, prob, z, dropped=jnp.array([[1.0, 0.0], [2.0, 0.0]]), tokens=tokens, entropy=z, first=load
    )
    # E sum_e f_e P_e times the row's tokens: 2 (3/4 2/4 + 1/4 2/4) 4 = 4, 2 (1/2 1/4 + 1/2 3/4) 4 = 4, 2 (3/4) 4 = 6
    balance, router_z = (4 + 4 + 6) / 2, (1 + 2 + 3) / 2
    aux = {"encoder": {"0": {"mlp": {"router": stats}, "attention": {"probs": z}}}}
    assert aux_losses(aux, (("balance", 0.5), ("router_z", 0.1), ("other", 9.0))) == pytest.approx(
        0.5 * balance + 0.1 * router_z
    )
    both = aux | {"decoder": {"0": {"router": stats}}}  # averaged over all routed layers
    assert aux_losses(both, (("balance", 1.0),)) == pytest.approx(balance)
    assert aux_losses({}, (("balance", 1.0),)) == 0
    reported = values(aux_metrics(aux))
    assert reported.pop("router_dropped") == 3 / 12 and reported.pop("router_peak") == (5 + 4) * 2 / 12
    place = "/encoder.0.mlp"
    assert reported == {
        f"router_load{place}": [[5 * 2 / 8, 3 * 2 / 8], [2, 0]],
        f"router_dropped{place}": [1 / 8, 2 / 4],
        f"router_entropy{place}": [(1 + 2) / 8, 3 / 4],
        f"router_spread{place}": pytest.approx([entropy([3, 5]), entropy([3, 1])]),
    }


def share(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(-1, keepdims=True)


def test_balance_losses_of_the_papers():
    """Each as its paper prints it, over layers, rows and tokens in loops; but for constant factors."""
    layers, rows, n, e, k, d, m = 2, 3, 5, 6, 2, 3, 2
    router = toys.balanced(k=k, groups=Groups(d, kept=m))
    rng = np.random.default_rng(0)
    p = {"w": np.eye(e, dtype=np.float32), "balance": rng.normal(0, 0.3, e).astype(np.float32)}
    logits = rng.normal(0, 1, (layers, rows, n, e)).astype(np.float32)
    routed = [router(p, x, np.ones(x.shape[:2], bool), e, Ctx()) for x in logits]
    stats = jax.tree.map(lambda *x: jnp.stack(x), *(r.stats for r in routed))
    probs = share(1 / (1 + np.exp(-logits)))
    picks = np.stack([r.experts for r in routed])
    hits = np.eye(e)[picks]  # [L, B, n, k, E]
    want = dict.fromkeys(("balance", "balance_first", "balance_scores", "balance_groups", "balance_sent"), 0.0)
    for at in np.ndindex(layers, rows):
        f, mean = hits[at].sum((0, 1)) * e / (k * n), probs[at].mean(0)  # DeepSeekMoE, eq. 13 and 14
        want["balance"] += f @ mean
        want["balance_first"] += e**2 * np.mean(hits[at][:, 0].mean(0) * mean)  # GShard, algorithm 1, times E^2
        top = np.argsort(-logits[at])[:, :k]  # DeepSeek-V3, eq. 18
        want["balance_scores"] += (np.eye(e)[top].sum((0, 1)) * e / (k * n)) @ mean
        of_group = mean.reshape(d, -1).sum(-1)
        want["balance_groups"] += f.reshape(d, -1).mean(-1) @ of_group  # DeepSeekMoE, eq. 16 and 17
        sent = [[g in token // (e // d) for g in range(d)] for token in picks[at]]  # DeepSeek-V2, eq. 30
        want["balance_sent"] += np.mean(sent, 0) * d / m @ of_group
    for name, total in want.items():
        assert aux_losses({"router": stats}, ((name, 1.0),)) == pytest.approx(n * total / layers, rel=1e-5), name

    mixtral = [share(hits[:, b].sum((0, 1, 2))) @ probs[:, b].mean((0, 1)) * e for b in range(rows)]
    together = (("balance_layers", 1.0),)
    assert aux_losses({"router": stats}, together) == pytest.approx(n * sum(mixtral), rel=1e-5)
    apart = {str(i): {"0": {"mlp": {"router": jax.tree.map(lambda x, i=i: x[i : i + 1], stats)}}} for i in range(2)}
    assert aux_losses(apart, together) == pytest.approx(n * sum(mixtral), rel=1e-5), "in two groups of a stack"
    alone = sum(float(aux_losses({"0": part}, together)) for part in apart.values())
    towers = {"encoder": apart["0"], "decoder": apart["1"]}
    assert aux_losses(towers, together) == pytest.approx(alone / 2, rel=1e-5), "each tower by itself"
    half = [jax.tree.map(lambda x, part=part: x[:, part], stats) for part in (slice(0, 1), slice(1, None))]
    parts = sum(float(aux_losses({"router": part}, together)) for part in half)
    assert parts == pytest.approx(n * sum(mixtral), rel=1e-5), "rows add up"
