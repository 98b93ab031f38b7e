"""The loss of several tokens ahead, from the scores of the whole model."""

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.objectives.causal import NextToken, TokenLoss
from lm.objectives.multi_token import MultiToken
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
        MultiToken().example(dict(zip(("tokens", "segments"), map(np.array, r), strict=True)), RNG) for r in rows
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
    np.testing.assert_allclose(loss.stats["nll"], sums[0], rtol=1e-5)
    assert loss.weight == 6


def test_a_packed_row_costs_what_its_documents_cost_alone(model, params):
    first = ([3, 5, 7, 2, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0])
    second = ([9, 4, 6, 8, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0])
    loss = jax.jit(lambda batch: MultiToken()(model, params, batch, Ctx()).total)
    np.testing.assert_allclose(loss(batch_of(PACKED)), loss(batch_of(first, second)), rtol=1e-5)


def test_the_model_reads_no_targets_and_no_bookkeeping(model, params, monkeypatch):
    read, hidden = [], type(model).hidden
    monkeypatch.setattr(
        type(model), "hidden", lambda self, p, rows, *rest: (read.append(rows), hidden(self, p, rows, *rest))[1]
    )
    batch = batch_of(PACKED) | {"bytes": np.ones((1, 8), np.int32), "fresh": np.ones(1, np.int32)}
    assert MultiToken()(model, params, batch, Ctx()).stats["bytes"] == 8
    assert [set(rows) for rows in read] == [{"tokens", "segments", "positions"}]


def test_all_parameters_learn(model, params):
    batch = batch_of((PACKED[0], [1] * 9))
    gradient = jax.jit(jax.grad(lambda p: MultiToken()(model, p, batch, Ctx()).total))(params)
    still = [path for path, g in flatten(gradient) if not np.abs(g).max() > 0]
    assert not still


def test_heads_and_objectives_must_suit(model, params):
    with pytest.raises(UserError, match=r"model\.head is MultiTokenHead"):
        NextToken()(model, params, batch_of(PACKED), Ctx())
    other = toys.windows()
    with pytest.raises(UserError, match=r"model\.head is LMHead: this objective needs a MultiTokenHead"):
        MultiToken()(other, toys.values(other.spec()), batch_of(PACKED), Ctx())
