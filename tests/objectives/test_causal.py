import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.ctx import Ctx
from lm.core.metrics import added
from lm.core.param import initialize
from lm.objectives.causal import NextToken, PrefixNextToken
from lm.objectives.examples.next_token import positions_in
from lm.objectives.token_loss import TokenLoss
from lm.zoo.gpt2 import gpt2

RNG = np.random.default_rng(0)


@st.composite
def packed_rows(draw):
    """Documents numbered from 1, then padding; tokens tell their place."""
    lengths = draw(st.lists(st.integers(1, 6), max_size=5))
    padding = draw(st.integers(0 if sum(lengths) > 1 else 2, 4))
    segments = np.repeat(np.arange(1, len(lengths) + 2), [*lengths, padding]).astype(np.int32)
    segments[sum(lengths) :] = 0
    tokens = np.where(segments > 0, np.arange(len(segments)) + 3, 0).astype(np.int32)
    return {"tokens": tokens, "segments": segments}


@given(packed_rows())
def test_example_predicts_the_next_token_of_the_same_document(row):
    example = NextToken().examples()(row, RNG)
    length = len(row["tokens"]) - 1
    assert {k: v.shape for k, v in example.items()} == dict.fromkeys(example, (length,))
    position = 0
    for i in range(length):
        here, following = row["segments"][i], row["segments"][i + 1]
        position = position + 1 if i and row["segments"][i - 1] == here else 0
        assert example["tokens"][i] == row["tokens"][i]
        assert example["targets"][i] == row["tokens"][i + 1]
        assert example["weights"][i] == (1.0 if here > 0 and here == following else 0.0)
        assert example["segments"][i] == here
        assert example["positions"][i] == position
    assert example["weights"].dtype == np.float32 and example["positions"].dtype == np.int32


@given(packed_rows(), st.integers(0, 2**32 - 1))
def test_a_prefix_is_seen_and_what_follows_it_is_predicted(row, seed):
    plain = NextToken().examples()(row, RNG)
    made = PrefixNextToken().examples()(row, np.random.default_rng(seed))
    assert all((made[k] == plain[k]).all() for k in plain.keys() - {"weights"})
    for s in range(1, row["segments"].max() + 1):
        at = np.flatnonzero(plain["segments"] == s)
        prefix = made["prefix"][at].tolist()
        assert prefix == sorted(prefix, reverse=True)
        assert prefix == [True] * len(at) if len(at) < 2 else (prefix[0] and not prefix[-1])
        # no token of the prefix is a target, and of the others every one
        last = sum(prefix) - 1
        assert made["weights"][at].tolist() == [w * (i >= last) for i, w in enumerate(plain["weights"][at].tolist())]
    assert not made["prefix"][plain["segments"] == 0].any() and made["prefix"].dtype == bool


def test_prefixes_are_cut_anywhere():
    row = {"tokens": np.arange(12, dtype=np.int32), "segments": np.ones(12, np.int32)}
    rng = np.random.default_rng(0)
    cuts = np.bincount([PrefixNextToken().examples()(row, rng)["prefix"].sum() for _ in range(2000)])
    assert cuts[0] == 0 and len(cuts) == 11 and (abs(cuts[1:] - 200) < 5 * 200**0.5).all()


def test_positions_restart_whenever_the_segment_changes():
    assert positions_in(np.array([1, 1, 2, 2, 2, 1, 0, 0])).tolist() == [0, 1, 0, 1, 2, 0, 0, 1]


MODEL = gpt2(layers=1, d_model=16, heads=2, vocab=32, context=16)
LENGTH = 8


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: initialize(MODEL.spec(), jax.random.key(0)))()


@jax.jit
def loss_of(params, batch):
    return NextToken()(MODEL, params, batch, Ctx())


def row_of(*documents):
    tokens = np.concatenate([*documents, []]).astype(np.int32)
    segments = np.repeat(np.arange(1, len(documents) + 1), [len(d) for d in documents])
    padding = (0, LENGTH + 1 - len(tokens))
    return {"tokens": np.pad(tokens, padding), "segments": np.pad(segments, padding)}


def batch_of(first, second=None):
    """Two rows; the second is all padding if it is not given."""
    examples = [NextToken().examples()(row, RNG) for row in (first, second or row_of())]
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


def test_a_packed_row_costs_what_its_documents_cost_alone(params):
    a, b = np.array([5, 6, 7, 8]), np.array([9, 10, 11])
    packed = loss_of(params, batch_of(row_of(a, b)))
    alone = loss_of(params, batch_of(row_of(a), row_of(b)))
    assert packed.weight == alone.weight == 5
    np.testing.assert_allclose(packed.total, alone.total, rtol=1e-5)


def test_parts_of_a_batch_add_up(params):
    rows = row_of(np.arange(3, 12)), row_of(np.arange(20, 24))
    whole, *parts = (loss_of(params, batch_of(*part)) for part in (rows, rows[:1], rows[1:]))
    np.testing.assert_allclose(whole.total, sum(p.total for p in parts), rtol=1e-5)
    assert whole.weight == sum(p.weight for p in parts) == 11
    jax.tree.map(
        lambda w, p: np.testing.assert_allclose(w, p, rtol=1e-5), whole.metrics, added(p.metrics for p in parts)
    )


def test_nothing_to_predict_is_a_loss_of_zero(params):
    loss = loss_of(params, batch_of(row_of()))
    assert loss.total == 0 and loss.weight == 0


def test_loss_is_cross_entropy_plus_weighted_z(params):
    batch = batch_of(row_of(np.arange(3, 9)), row_of([3, 5], [9, 9, 9]))

    @jax.jit
    def naive(params):
        logits = MODEL.logits(params, MODEL.hidden(params, batch, Ctx())[0], Ctx())
        log_p = jax.nn.log_softmax(logits)
        nll = -jnp.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0]
        z = jnp.square(jax.nn.logsumexp(logits, axis=-1))
        return (nll * batch["weights"]).sum(), (z * batch["weights"]).sum()

    nll, z = naive(params)
    objective = NextToken(TokenLoss(z_loss=0.5, chunk=3))
    loss = jax.jit(lambda params: objective(MODEL, params, batch, Ctx()))(params)
    np.testing.assert_allclose(loss.metrics["loss"].total, nll, rtol=1e-5)
    np.testing.assert_allclose(loss.total, nll + 0.5 * z, rtol=1e-5)
