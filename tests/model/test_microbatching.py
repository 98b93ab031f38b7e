"""Rows of a batch do not know each other: parts of a batch draw the dropout, and leave the statistics, of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx, dropout
from lm.model.moe.dispatch import Capacity
from tests import toy_towers, toys

KEY = jax.random.key(7)
BATCH = {"tokens": toys.tokens(4), "row": jnp.array([4, 5, 6, 7])}


def part(batch: dict, rows: slice) -> dict:
    return {k: v[rows] for k, v in batch.items()}


MODELS = {
    "dense_first": toys.dense_first(Capacity(1.0, group=4), 0.25),
    "encoder_decoder": toy_towers.encoder_decoder(),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_a_batch_equal_the_whole(name):
    model = MODELS[name]
    params = toys.values(model.spec())
    batch = BATCH | ({"encoder/tokens": toys.tokens(4, 5)} if name == "encoder_decoder" else {})
    whole, _, out = toys.forward(model, params, batch, KEY)
    halves = [toys.forward(model, params, part(batch, rows), KEY) for rows in (slice(0, 2), slice(2, 4))]
    toys.close(jnp.concatenate([h[0] for h in halves]), whole)
    toys.close(jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *(h[2] for h in halves)), out)
    assert toys.differ(whole, toys.forward(model, params, batch, jax.random.key(8))[0])
    # Ids, not places, key the bits.
    assert toys.differ(
        whole[:2], toys.forward(model, params, part(batch | {"row": jnp.arange(4)}, slice(0, 2)), KEY)[0]
    )


def test_dropout_is_keyed_by_key_layer_site_and_row():
    x, ctx = jnp.ones((2, 400)), Ctx(key=KEY)
    base = dropout(x, 0.25, ctx, "a")
    assert set(np.unique(base).tolist()) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((base == 0).mean()) - 0.25) < 0.06
    assert toys.differ(base[0], base[1])
    for other in (
        ctx.replace(layer=1),
        ctx.at("b"),
        ctx.replace(key=jax.random.key(8)),
        ctx.replace(rows={"row": [2, 3]}),
    ):
        other = other.replace(rows={k: jnp.array(v) for k, v in other.rows.items()})
        assert toys.differ(base, dropout(x, 0.25, other, "a"))
    assert toys.differ(base, dropout(x, 0.25, ctx, "b"))
    assert (dropout(x, 0.25, ctx.replace(rows={"row": jnp.array([1, 0])}), "a") == base[::-1]).all()
    assert (dropout(x, 0.25, Ctx(), "a") == x).all()
    assert (dropout(x, 0.0, ctx, "a") == x).all()


def test_recorded_activations_come_back_by_layer():
    model = toys.learned_positions()
    params = toys.values(model.spec())
    record = frozenset({"probs"})
    forward = jax.jit(lambda p: model.hidden(p, {"tokens": toys.tokens(2)}, Ctx(record=record))[2])
    probs = forward(params)["0"]["0"]["attention"]["probs"]
    assert probs.shape == (2, 2, toys.HEADS, toys.LENGTH, toys.LENGTH)  # [layers, B, H, S, T]
    toys.close(probs.sum(-1), np.ones(probs.shape[:-1]))
