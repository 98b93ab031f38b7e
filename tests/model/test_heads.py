"""Heads: which token's state stands for a row, and the span-boundary head against the paper's equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import metrics
from lm.core.component import from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.model.heads import (
    FirstTokenFeature,
    Head,
    Heads,
    LMHead,
    LossTerms,
    NoHead,
    SequenceClassifier,
    TokenClassifier,
    TransformHead,
)
from lm.model.layers import LayerNorm
from lm.model.special.spans import SpanBoundary
from lm.model.special.streams import StreamHead
from lm.zoo.bert import bert
from tests import toys

D, B, S, VOCAB = 4, 3, 6, 11
SEGMENTS = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2], [1, 1, 1, 0, 0, 0]])
TOKENS = np.array([[7, 2, 5, 2, 3, 4], [2, 2, 9, 2, 5, 6], [8, 3, 4, 2, 2, 2]])


def states() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((B, S, D)).astype(np.float32)


def called(head: Head, rows: dict[str, np.ndarray], x: np.ndarray | None = None) -> tuple:
    """What a head with random parameters makes of the states, and these parameters as numpy arrays."""
    p = toys.values(head.spec(D))
    ctx = Ctx(rows={name: jnp.asarray(row) for name, row in rows.items()})
    y = jax.jit(lambda p, x: head(p, x, ctx))(p, states() if x is None else x)
    return jax.tree.map(np.asarray, y), jax.tree.map(np.asarray, p)


@pytest.mark.parametrize(
    ("head", "places"),
    [
        (SequenceClassifier(at="first"), [0, 2, 0]),
        (SequenceClassifier(at="last"), [5, 5, 2]),
        (SequenceClassifier(at="end", end=2), [3, 3, 0]),  # a row without an end: its first
        (SequenceClassifier(at="end", end=2, row="encoder/tokens"), [1, 2, 2]),
    ],
    ids=["first", "last", "end", "the encoder's end"],
)
def test_the_token_that_stands_for_a_row(head, places):
    other = np.where(np.arange(S) == np.array([[1], [2], [2]]), 2, 3)
    rows = {"segments": SEGMENTS, "tokens": TOKENS, "encoder/tokens": other}
    y, _ = called(head, rows)
    np.testing.assert_array_equal(y, states()[np.arange(B), places])


def test_without_segments_all_tokens_are_real():
    for at, place in (("first", 0), ("last", S - 1)):
        np.testing.assert_array_equal(called(SequenceClassifier(at=at), {"tokens": TOKENS})[0], states()[:, place])


def test_padding_is_passed_over():
    """Whatever stands where there is no text, the row's score is the same."""
    noisy = np.where(SEGMENTS[..., None] > 0, states(), 1e3).astype(np.float32)
    for at in ("first", "last", "mean"):
        head = SequenceClassifier(3, at=at, activation="tanh")
        np.testing.assert_array_equal(
            called(head, {"segments": SEGMENTS}, noisy)[0], called(head, {"segments": SEGMENTS})[0]
        )


def test_the_mean_stands_for_a_row():
    head = SequenceClassifier(3, at="mean", activation="tanh", norm=LayerNorm(), dense_bias=False)
    y, p = called(head, {"segments": SEGMENTS})
    for b in range(B):
        hidden = np.tanh(states()[b, SEGMENTS[b] > 0].mean(axis=0) @ p["dense"]["w"])
        normed = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * p["norm"]["w"] + p["norm"]["b"]
        np.testing.assert_allclose(y[b], normed @ p["out"]["w"] + p["out"]["b"], rtol=1e-4, atol=1e-5)


def test_pooler_and_classifier():
    y, p = called(SequenceClassifier(3, activation="tanh"), {"segments": SEGMENTS})
    for b, place in enumerate([0, 2, 0]):
        pooled = np.tanh(states()[b, place] @ p["dense"]["w"] + p["dense"]["b"])
        np.testing.assert_allclose(y[b], pooled @ p["out"]["w"] + p["out"]["b"], rtol=1e-5, atol=1e-6)
    y, p = called(SequenceClassifier(activation="tanh"), {"segments": SEGMENTS})
    assert "out" not in p
    np.testing.assert_allclose(y[0], np.tanh(states()[0, 0] @ p["dense"]["w"] + p["dense"]["b"]), rtol=1e-5)


def test_wrong_places_are_refused():
    with pytest.raises(UserError, match=r"at='frist' of a head is unknown; did you mean 'first'\?"):
        SequenceClassifier(at="frist")
    for knobs in ({"at": "end"}, {"end": 2}):
        with pytest.raises(UserError, match="give `end`, a token's id, with at='end' only"):
            SequenceClassifier(**knobs)
    for kind in (SequenceClassifier, TokenClassifier):
        with pytest.raises(UserError, match="without `activation` has no dense layer"):
            kind(3, dense_bias=False)
    with pytest.raises(UserError, match="looks for its end in the rows 'encoder/tokens'"):
        called(SequenceClassifier(at="end", end=2, row="encoder/tokens"), {"tokens": TOKENS})


def test_scores_of_tokens():
    y, p = called(TokenClassifier(3, bias=False), {})
    np.testing.assert_allclose(y, states() @ p["out"]["w"], rtol=1e-5, atol=1e-6)
    assert set(p["out"]) == {"w"}
    y, p = called(TokenClassifier(1, "relu"), {})
    inner = np.maximum(states() @ p["dense"]["w"] + p["dense"]["b"], 0)
    np.testing.assert_allclose(y, inner @ p["out"]["w"] + p["out"]["b"], rtol=1e-5, atol=1e-6)
    assert y.shape == (B, S, 1)


def test_heads_side_by_side_are_each_what_they_are_alone():
    parts = (
        ("masked", TransformHead(LMHead(VOCAB, bias=True), LayerNorm())),
        ("pair", SequenceClassifier(2, activation="tanh")),
        ("states", NoHead()),
    )
    rows = {"segments": SEGMENTS}
    found, p = called(Heads(parts), rows)
    assert found.keys() == p.keys() | {"states"} == {name for name, _ in parts}
    for name, head in parts:
        alone = head(p.get(name, {}), states(), Ctx(rows=rows))
        np.testing.assert_allclose(found[name], alone, rtol=1e-5, atol=1e-6)
    assert all(y.dtype == np.float32 for y in found.values())
    assert from_dict(to_dict(Heads(parts))) == Heads(parts)


# Two spans in the first row: tokens 1 to 3 and token 4; one in the second, tokens 3 and 4.
LEFT = np.array([[0, 0, 0, 0, 3, 4], [0, 0, 1, 2, 2, 4], [0, 0, 1, 2, 3, 4]])
RIGHT = np.array([[1, 4, 4, 4, 5, 5], [1, 2, 3, 5, 5, 5], [1, 2, 3, 4, 5, 5]])
PLACE = np.array([[0, 0, 1, 2, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def layer(p: dict, norm: dict, x: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm(GeLU(W x + b)), one number after another (equations of section 3.2)."""
    h = [gelu(sum(x[i] * p["w"][i, j] for i in range(len(x))) + p["b"][j]) for j in range(len(p["b"]))]
    mean = sum(h) / len(h)
    std = math.sqrt(sum((y - mean) ** 2 for y in h) / len(h) + eps)
    return np.array([(y - mean) / std * g + b for y, g, b in zip(h, norm["w"], norm["b"], strict=True)])


def test_span_boundary_is_the_papers():
    head = SpanBoundary(LMHead(VOCAB, bias=True), LayerNorm(1e-2), max_span=3, position_width=5, width=6)
    rows = {"span_left": LEFT, "span_right": RIGHT, "span_index": PLACE}
    y, p = called(head, rows)
    assert y.shape == (B, S, VOCAB) and y.dtype == np.float32
    x = states().astype(np.float64)
    for b in range(B):
        for i in range(S):
            h0 = np.concatenate([x[b, LEFT[b, i]], x[b, RIGHT[b, i]], p["place"]["w"][PLACE[b, i]]])
            h1 = layer(p["dense1"], p["norm1"], h0, 1e-2)
            h2 = layer(p["dense2"], p["norm2"], h1, 1e-2)
            logits = [float(h2 @ p["lm"]["w"][v]) + p["lm"]["b"][v] for v in range(VOCAB)]
            np.testing.assert_allclose(y[b, i], logits, rtol=2e-4, atol=2e-5)


def test_span_boundary_does_not_see_the_span():
    """What stands within a span is predicted from what stands beside it alone."""
    head = SpanBoundary(LMHead(VOCAB), LayerNorm(), max_span=3, position_width=5)
    rows = {"span_left": LEFT, "span_right": RIGHT, "span_index": PLACE}
    other = states()
    other[0, 1:4] += 1
    same, changed = called(head, rows)[0], called(head, rows, other)[0]
    np.testing.assert_array_equal(same[0, 2], changed[0, 2])
    assert toys.differ(same[0, 0], changed[0, 0])  # which is no span's: token 1 is beside it


def test_without_spans_each_token_is_one():
    head = SpanBoundary(LMHead(VOCAB), LayerNorm(), max_span=3, position_width=5)
    index = np.broadcast_to(np.arange(S), (B, S))
    rows = {"span_left": np.maximum(index - 1, 0), "span_right": np.minimum(index + 1, S - 1)}
    given = called(head, rows | {"span_index": np.zeros((B, S), int)})[0]
    np.testing.assert_array_equal(called(head, {})[0], given)


def test_positions_past_the_table_are_its_last():
    head = SpanBoundary(LMHead(VOCAB), LayerNorm(), max_span=2, position_width=5)
    rows = {"span_left": LEFT, "span_right": RIGHT}
    far, last = (called(head, rows | {"span_index": np.full((B, S), n)})[0] for n in (9, 1))
    np.testing.assert_array_equal(far, last)
    stored = to_dict(head)
    stored |= {
        "places": stored.pop("max_span"),
        "place_width": stored.pop("position_width"),
    }  # its knobs' names of before
    assert from_dict(stored) == head


def test_a_span_boundary_head_shares_the_token_table():
    model = bert(layers=1, d_model=8, heads=2, vocab=VOCAB, context=S, pretraining=("mlm", "sbo"))
    tables = [path for path, p in flatten(model.spec()) if p.shape == (VOCAB, 8)]
    assert tables == ["body/embed/token"]
    found = model(toys.values(model.spec()), {"tokens": jnp.asarray(TOKENS)})
    assert {name: y.shape for name, y in found.items()} == {"mlm": (B, S, VOCAB), "sbo": (B, S, VOCAB)}


@pytest.mark.parametrize(
    "head",
    [
        LMHead(VOCAB, bias=True),
        TransformHead(LMHead(VOCAB), LayerNorm()),
        SpanBoundary(LMHead(VOCAB), LayerNorm(), max_span=3, position_width=5),
        TokenClassifier(3),
        TokenClassifier(1, "gelu"),
        FirstTokenFeature(TokenClassifier(2), LayerNorm()),
        SequenceClassifier(4, activation="tanh"),
        StreamHead(LMHead(VOCAB), streams=1),
    ],
    ids=lambda head: type(head).__name__,
)
def test_the_loss_of_a_head_is_that_of_its_scores(head):
    x = np.concatenate([states(), states()[..., ::-1]], axis=-1) if isinstance(head, StreamHead) else states()
    p = toys.values(head.spec(x.shape[-1]))
    ctx = Ctx(rows={"segments": jnp.asarray(SEGMENTS), "tokens": jnp.asarray(TOKENS)})
    scores = np.asarray(head(p, x, ctx), np.float64)
    if scores.shape[-1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=-1)
    rng = np.random.default_rng(1)
    targets = rng.integers(0, scores.shape[-1], scores.shape[:-1])
    weights = rng.integers(0, 3, targets.shape).astype(np.float32)
    log_z = np.log(np.exp(scores).sum(-1))
    nll = log_z - np.take_along_axis(scores, targets[..., None], -1)[..., 0]
    even = log_z - scores.mean(-1)
    terms = LossTerms(z_loss=0.1, smoothing=0.2, chunk=4)
    loss = jax.jit(lambda p: head.loss(p, x, targets, weights, ctx, terms))(p)
    whole = 0.8 * nll + 0.2 * even + 0.1 * log_z**2
    np.testing.assert_allclose(loss.total, (whole * weights).sum(), rtol=1e-5)
    assert loss.weight == loss.metrics["tokens"].total == weights.sum()
    found = metrics.values(loss.metrics)
    assert found["loss"] == pytest.approx((nll * weights).sum() / weights.sum(), rel=1e-5)
    hits = (scores.argmax(-1) == targets) * weights
    assert found["accuracy"] == pytest.approx(hits.sum() / weights.sum())


def test_heads_that_predict_nothing_say_so():
    for head in (NoHead(), Heads((("a", NoHead()), ("b", NoHead())))):
        with pytest.raises(UserError, match=r"model.* head"):
            head.loss({}, states(), TOKENS, TOKENS, Ctx(), LossTerms())
