"""Permutation language modelling: what is asked for, and that the loss is of that."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import values
from lm.objectives.objective import check_needs
from lm.objectives.permuted import Permutation
from lm.objectives.token_loss import TokenLoss
from lm.zoo.gpt2 import gpt2
from lm.zoo.xlnet import xlnet
from tests import toys
from tests.train import tiny

MODEL = xlnet(layers=2, d_model=12, heads=3, d_ff=14, vocab=toys.VOCAB)


def row(length, documents=(), padding=0, seed=0):
    """`length` + 1 tokens that tell their places, in documents that begin at these places."""
    index = np.arange(length + 1)
    segments = np.searchsorted(sorted(documents), index, side="right") + 1
    return {"tokens": index.astype(np.int32), "segments": np.where(index > length - padding, 0, segments)}


@given(
    length=st.integers(1, 60),
    share=st.floats(0.05, 1.0),
    longest=st.integers(1, 9),
    documents=st.lists(st.integers(1, 60), max_size=4),
    padding=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_what_an_example_asks_for(length, share, longest, documents, padding, seed):
    given = row(length, documents, min(padding, length))
    made = Permutation(share, longest).examples()(given, np.random.default_rng(seed))
    asked = max(1, round(share * length))
    real = int((given["segments"][:-1] > 0).sum())
    assert made["tokens"].shape == made["order"].shape == (length + asked,)
    np.testing.assert_array_equal(made["tokens"][:length], given["tokens"][:-1])
    known = made["weights"] > 0
    assert known.sum() == min(asked, real) and not known[known.sum() :].any()
    at, places = made["targets"][known], ~made["order"][length:][known]  # a token is its place
    assert len(set(at.tolist())) == len(at) and sorted(places) == list(range(1, len(at) + 1))
    np.testing.assert_array_equal(made["order"][at], places)
    assert (np.delete(made["order"][:length], at) == 0).all()
    for name in ("segments", "positions"):
        np.testing.assert_array_equal(made[name][length:][known], made[name][at])
    assert (made["segments"][at] > 0).all()


def test_spans_and_orders_are_random_and_reproducible():
    examples = [Permutation().examples()(row(120), np.random.default_rng(seed)) for seed in range(40)]
    orders = np.stack([e["order"][:120] for e in examples])
    assert len({o.tobytes() for o in orders}) == 40
    neighbours = ((orders[:, 1:] > 0) & (orders[:, :-1] > 0)).sum() / (orders > 0).sum()
    assert 0.4 < neighbours < 0.8, "spans of 1 to 5 tokens: two of three are followed by another"
    again = Permutation().examples()(row(120), np.random.default_rng(7))
    assert all(np.array_equal(again[name], examples[7][name]) for name in again)


def test_the_loss_is_of_the_queries():
    params, objective = toys.values(MODEL.spec()), Permutation(0.5, loss=TokenLoss(chunk=3))
    tokens = np.random.default_rng(0).integers(0, toys.VOCAB, (3, 13)).astype(np.int32)
    rows = [{"tokens": t, "segments": s} for t, s in zip(tokens, np.ones_like(tokens), strict=True)]
    examples = [objective.examples()(r, np.random.default_rng(i)) for i, r in enumerate(rows)]
    batch = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    loss, gradient = jax.value_and_grad(lambda p: objective(MODEL, p, batch, Ctx()).total)(params)
    logits = MODEL(params, {k: v for k, v in batch.items() if k not in ("targets", "weights")})[:, 12:]
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), batch["targets"][..., None], axis=-1).sum()
    np.testing.assert_allclose(loss, nll, rtol=1e-5)
    assert np.abs(gradient["body"]["embed"]["blank"]).max() > 0


def test_it_learns():
    """Rows that count upwards: what is asked for follows from its neighbours."""
    model = xlnet(layers=2, d_model=32, heads=4, d_ff=64, vocab=tiny.VOCAB)
    trainer, hyper = tiny.trainer(model, learning_rate=3e-3)
    trainer = dataclasses.replace(trainer, objective=Permutation())
    state, step, losses = trainer.init(hyper), jax.jit(trainer.step), []
    rng = np.random.default_rng(0)
    for _ in range(150):
        starts = rng.integers(0, tiny.VOCAB, (16, 1))
        tokens = ((starts + np.arange(tiny.LENGTH + 1)) % tiny.VOCAB).astype(np.int32)
        examples = [Permutation().examples()({"tokens": t, "segments": np.ones_like(t)}, rng) for t in tokens]
        state, metrics = step(state, {name: np.stack([e[name] for e in examples]) for name in examples[0]})
        losses.append(values(metrics)["loss"])
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:10])


@pytest.mark.parametrize(
    ("knobs", "message"), [({"share": 0.0}, "share=0.0 of the tokens"), ({"longest": 0}, "longest=0 span")]
)
def test_wrong_knobs(knobs, message):
    with pytest.raises(UserError, match=message):
        Permutation(**knobs)


def test_a_model_without_an_order_is_told():
    model = gpt2(layers=1, d_model=8, heads=2, vocab=toys.VOCAB, context=30)
    with pytest.raises(UserError, match=r"no part of this model reads the rows 'order' .* a model with Permuted, or"):
        check_needs(Permutation(), model)
