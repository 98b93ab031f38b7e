"""Streams of predictors: what each reads, and what they learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import metrics
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.objectives.token_loss import TokenLoss
from tests import toy_towers, toys
from tests.zoo import plain

MODEL = toy_towers.predictors()
PARAMS = toys.values(MODEL.spec())
SOURCE = toys.tokens(1, 6, seed=1)


@jax.jit
def hidden(batch: dict) -> jax.Array:
    return MODEL.hidden(PARAMS, batch, Ctx())[0][0]


def states(tokens: jax.Array, **rows: jax.Array) -> np.ndarray:
    """[S, streams, d]"""
    x = hidden({"tokens": tokens, "encoder/tokens": SOURCE, **rows})
    return np.asarray(x).reshape(tokens.shape[1], 4, toys.D)


def test_a_predictor_reads_as_far_as_it_may():
    """That of the n-th token reads n - 1 tokens less than stand at its place and before, but always the first."""
    tokens, length = toys.tokens(1), toys.LENGTH
    before = states(tokens)
    for j in range(length):
        moved = np.abs(states(tokens.at[0, j].add(1) % toys.VOCAB) - before).max(axis=2) > 1e-6
        for i in range(length):
            assert list(moved[i]) == [j <= i] + [j <= i - less or j == 0 for less in range(3)], (i, j)


def test_packed_texts_are_kept_apart():
    tokens, length = toys.tokens(1), toys.LENGTH
    half = jnp.arange(length)[None] // (length // 2)
    rows = {"segments": half + 1, "positions": jnp.arange(length)[None] % (length // 2)}
    rows |= {"encoder/segments": jnp.full((1, 6), 2), "encoder/positions": jnp.arange(6)[None]}
    alone = states(tokens[:, length // 2 :])
    np.testing.assert_allclose(states(tokens, **rows)[length // 2 :], alone, atol=1e-5)


def test_attention_against_the_equations():
    """Scores q k / sqrt(K) + (x W + b)[bucket of the distance], a predictor counting from one place further on."""
    layer = dict(MODEL.decoder.stack.blocks()[0].parts)["attention"]
    p = toys.values(layer.spec(toys.D))
    x = np.random.default_rng(0).standard_normal((4, 5, toys.D))  # [streams, S, d]
    rows = {"positions": jnp.tile(jnp.arange(5)[None], (1, 4))}
    ours, _ = layer(p, jnp.asarray(x.reshape(1, 20, -1), jnp.float32), Ctx(rows=rows), None, {})

    p, size = plain.numpy(p), layer.head_dim
    theirs = np.zeros((4, 5, layer.heads, size))
    for n in range(4):
        for i in range(5):
            seen = [(0, j) for j in range(i + 1) if n == 0 or j == 0 or j <= i - (n - 1)] + ([(n, i)] if n else [])
            added = plain.linear(p["relative"], x[n, i]).reshape(layer.buckets, layer.heads)
            for h in range(layer.heads):
                q = plain.linear(p["q"], x[n, i]).reshape(-1, size)[h]
                scores, values = [], []
                for stream, j in seen:
                    distance = i + (n > 0) - (j + (stream > 0))
                    bucket = distance if distance < 3 else 3 + int(np.log(distance / 3) / np.log(7 / 3) * 3)
                    k, v = (plain.linear(p[name], x[stream, j]).reshape(-1, size)[h] for name in "kv")
                    scores.append(q @ k / np.sqrt(size) + added[min(bucket, 5), h])
                    values.append(v)
                weights = np.exp(scores - np.max(scores))
                theirs[n, i, h] = weights / weights.sum() @ np.array(values)
    plain.close(ours[0], plain.linear(p["o"], theirs.reshape(20, -1)))


def test_all_predictors_learn_and_the_first_is_reported():
    tokens = toys.tokens(1)
    weights = jnp.asarray([[0.0] + [1.0] * (toys.LENGTH - 1)])
    batch = {"tokens": tokens, "encoder/tokens": SOURCE, "targets": tokens, "weights": weights}
    loss = jax.jit(lambda batch: TokenLoss()(MODEL, PARAMS, batch, Ctx(), jnp.float32))(batch)

    def nll(stream: int) -> float:
        model = dataclasses.replace(MODEL, head=dataclasses.replace(MODEL.head, stream=stream))
        logits = jax.jit(model)(PARAMS, {"tokens": tokens, "encoder/tokens": SOURCE})[0]
        each = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, tokens[0, :, None], axis=1)[:, 0]
        return float((each * weights[0]).sum())

    each = [nll(stream) for stream in (1, 2, 3)]
    np.testing.assert_allclose(loss.total / loss.weight, sum(each) / 3 / (toys.LENGTH - 1), rtol=1e-5)
    np.testing.assert_allclose(metrics.values(loss.metrics)["loss"], each[0] / (toys.LENGTH - 1), rtol=1e-5)


def test_layers_and_tower_have_equally_many():
    with pytest.raises(UserError, match="streams=3, its tower 2"):
        dataclasses.replace(MODEL.decoder, streams=2)
