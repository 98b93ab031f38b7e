"""The loss of several tokens ahead, from the scores of the whole model."""

import dataclasses

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.evaluate.evaluator import Evaluator
from lm.model.layers import RMSNorm
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.stack import Stack
from lm.objectives.causal import NextToken
from lm.objectives.multi_token import MultiToken
from lm.objectives.objective import check_needs
from lm.objectives.token_loss import TokenLoss
from tests import toys

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return toys.many_ahead()


@pytest.fixture(scope="module")
def params(model):
    return toys.values(model.spec())


def batch_of(*rows: tuple[list[int], list[int]]) -> dict:
    """Rows of (tokens, segments)."""
    examples = [
        MultiToken().examples()(dict(zip(("tokens", "segments"), map(np.array, r), strict=True)), RNG) for r in rows
    ]
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


PACKED = ([3, 5, 7, 2, 9, 4, 6, 8, 0], [1, 1, 1, 1, 2, 2, 2, 2, 0])


def nll(scores: np.ndarray, target: int) -> float:
    return float(jax.nn.logsumexp(scores) - scores[target])


def test_each_depth_predicts_one_token_further_within_the_document(model, params):
    tokens, segments = PACKED
    batch = batch_of(PACKED)
    scores = model(params, {k: v for k, v in batch.items() if k not in ("targets", "weights")})
    sums = []
    for k in range(3):
        total = 0.0
        for i in range(len(tokens) - 1):
            j = i + k + 1
            if j < len(tokens) and segments[i] == segments[j] > 0:
                total += nll(np.asarray(scores[str(k)][0, i]), tokens[j])
        sums.append(total)
    loss = jax.jit(lambda p: MultiToken(TokenLoss(chunk=3), 0.4)(model, p, batch, Ctx()))(params)
    np.testing.assert_allclose(loss.total, sums[0] + 0.4 * (sums[1] + sums[2]) / 2, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["loss"].total, sums[0], rtol=1e-5)
    assert loss.weight == 6


def test_a_packed_row_costs_what_its_documents_cost_alone(model, params):
    first = ([3, 5, 7, 2, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0])
    second = ([9, 4, 6, 8, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0])
    loss = jax.jit(lambda batch: MultiToken()(model, params, batch, Ctx()).total)
    np.testing.assert_allclose(loss(batch_of(PACKED)), loss(batch_of(first, second)), rtol=1e-5)


def test_the_model_reads_no_targets_and_no_bookkeeping(model, params, monkeypatch):
    read, body = [], type(model.body).__call__
    monkeypatch.setattr(
        type(model.body),
        "__call__",
        lambda self, p, ids, ctx, *rest: (read.append(ctx), body(self, p, ids, ctx, *rest))[1],
    )
    batch = batch_of(PACKED) | {"bytes": np.ones((1, 8), np.int32), "reset": np.ones(1, np.int32)}
    assert MultiToken()(model, params, batch, Ctx()).metrics["bytes"].total == 8
    assert [set(ctx.rows) for ctx in read] == [{"tokens", "segments", "positions"}]


def test_all_parameters_learn(model, params):
    batch = batch_of((PACKED[0], [1] * 9))
    gradient = jax.jit(jax.grad(lambda p: MultiToken()(model, p, batch, Ctx()).total))(params)
    still = [path for path, g in flatten(gradient) if not np.abs(g).max() > 0]
    assert not still


def test_routers_of_the_modules_are_balanced():
    """By their losses and by their buffers, as those of the model are."""
    moe = MoE(3, toys.mlp, TopK(k=1, rate=0.5), Dropless())
    routed = Stack.of([toys.block(toys.attention(rotary=toys.rotary), moe)], norm=RMSNorm())
    plain = toys.many_ahead()
    model = dataclasses.replace(plain, head=dataclasses.replace(plain.head, module=routed))
    params, batch = toys.values(model.spec()), batch_of((PACKED[0], [1] * 9))
    weighed, not_weighed = (
        jax.jit(lambda p, loss=TokenLoss(aux=aux): MultiToken(loss)(model, p, batch, Ctx()))(params)
        for aux in ((("balance", 1.0),), ())
    )
    assert weighed.total > not_weighed.total + 1
    moved = model.update(params, weighed.aux)
    for depth in "12":
        balance = [p["head"][depth]["module"]["0"]["0"]["mlp"]["router"]["balance"] for p in (params, moved)]
        load = np.asarray(weighed.aux["head"][depth]["0"]["0"]["mlp"]["router"].load.sum(axis=1))
        np.testing.assert_allclose(balance[1] - balance[0], 0.5 * np.sign(load.mean(-1, keepdims=True) - load))
    assert jax.tree.all(jax.tree.map(np.array_equal, moved["body"], params["body"]))


def test_heads_and_objectives_must_suit(model):
    with pytest.raises(UserError, match=r"model\.head is MultiTokenHead, which predicts tokens further .*LMHead"):
        check_needs(NextToken(), model)
    with pytest.raises(UserError, match=r"model\.head is LMHead, .* take MultiTokenHead, or another objective"):
        check_needs(MultiToken(), toys.windows())
    with pytest.raises(UserError, match=r"model\.head is MultiTokenHead"):
        Evaluator(model, NextToken())
