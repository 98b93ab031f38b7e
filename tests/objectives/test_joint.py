"""Losses of several heads at once: each is its mean over the whole batch, times its weight."""

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.rows import with_totals
from lm.model.heads import ROW_LABELS, TOKENS, Heads, LMHead, SequenceClassifier
from lm.objectives.joint import JointLoss
from lm.objectives.labels import NextTokenAndLabel
from lm.objectives.objective import Needs, check_needs, check_packing
from lm.objectives.token_loss import TokenObjective
from lm.zoo.bert import bert
from lm.zoo.gpt2 import gpt2
from tests import toys

MODEL = bert(layers=1, d_model=8, heads=2, vocab=13, context=8, pretraining=("mlm", "nsp"))
LOSS = JointLoss((("mlm", 1.0), ("nsp", 3.0)))


class Pairs(TokenObjective):
    loss = LOSS

    def needs(self):
        return Needs(both_sides=True, heads=(("mlm", TOKENS), ("nsp", ROW_LABELS)))


def batch() -> dict:
    rng = np.random.default_rng(0)
    return {
        "tokens": toys.tokens(4),
        "mlm/targets": rng.integers(0, 13, (4, 8)),
        "mlm/weights": np.float32(rng.random((4, 8)) < [[0.1], [0.3], [0.5], [0.7]]),
        "nsp/targets": np.array([0, 1, 1, 0]),
        "nsp/weights": np.float32([1, 0, 1, 1]),
    }


def nll(scores: jax.Array, targets: np.ndarray) -> np.ndarray:
    return -np.take_along_axis(np.asarray(jax.nn.log_softmax(scores)), targets[..., None], -1)[..., 0]


def test_the_loss_is_the_weighted_sum_of_the_heads_means():
    params, rows = toys.values(MODEL.spec()), batch()
    scores = MODEL(params, {"tokens": rows["tokens"]})
    each = {name: nll(scores[name], rows[f"{name}/targets"]) * rows[f"{name}/weights"] for name in scores}
    means = {name: each[name].sum() / rows[f"{name}/weights"].sum() for name in each}
    total, weight, metrics, *_ = Pairs()(MODEL, params, rows, Ctx())
    assert weight == rows["mlm/weights"].sum() + 3 == metrics["tokens"].value
    np.testing.assert_allclose(total / weight, means["mlm"] + 3 * means["nsp"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"].value, total / weight, rtol=1e-6)
    for name, mean in means.items():
        np.testing.assert_allclose(metrics[f"{name}/loss"].value, mean, rtol=1e-5)
    assert {"mlm/accuracy", "nsp/accuracy"} <= metrics.keys()


def test_microbatches_add_up_to_the_whole():
    params, rows = toys.values(MODEL.spec()), with_totals(batch())
    parts = [Pairs()(MODEL, params, {k: v[i : i + 1] for k, v in rows.items()}, Ctx()) for i in range(4)]
    whole = Pairs()(MODEL, params, batch(), Ctx())
    np.testing.assert_allclose(sum(part.total for part in parts), whole.total, rtol=1e-5)
    np.testing.assert_allclose(sum(part.weight for part in parts), whole.weight)


def test_a_head_with_nothing_to_predict_adds_nothing():
    params, rows = toys.values(MODEL.spec()), batch()
    alone = Pairs()(MODEL, params, rows | {"nsp/weights": np.zeros(4, np.float32)}, Ctx())
    np.testing.assert_allclose(alone.total / alone.weight, alone.metrics["mlm/loss"].value, rtol=1e-5)


def test_models_without_these_heads_are_refused():
    check_needs(Pairs(), MODEL)
    shape = {"layers": 1, "d_model": 8, "heads": 2, "vocab": 13, "context": 8}
    with pytest.raises(UserError, match="trains the heads mlm, nsp, but the model has one head, TransformHead"):
        check_needs(Pairs(), bert(**shape))
    with pytest.raises(UserError, match="but the model has the heads mlm, sop"):
        check_needs(Pairs(), bert(**shape, pretraining=("mlm", "sop")))
    swapped = Needs(heads=(("mlm", ROW_LABELS),))
    with pytest.raises(UserError, match=r"model\.head 'mlm' is TransformHead, which predicts tokens"):
        check_needs(type("Swapped", (Pairs,), {"needs": lambda self: swapped})(), MODEL)


@pytest.mark.parametrize("heads", [(), (("mlm", 1.0), ("mlm", 2.0)), (("mlm", -1.0),)])
def test_wrong_weights(heads):
    with pytest.raises(UserError, match="heads"):
        JointLoss(heads)


def labelled(classes: int) -> object:
    model = gpt2(layers=1, d_model=8, heads=2, vocab=13, context=8)
    return type(model)(model.body, Heads((("lm", LMHead(13)), ("label", SequenceClassifier(classes, at="last")))))


def records() -> list[dict]:
    """Of 5, 3 and no tokens, with the labels 1, 0."""
    rng = np.random.default_rng(0)
    return [
        {
            "tokens": np.where(np.arange(9) < n, rng.integers(1, 13, 9), 0).astype(np.int32),
            "segments": np.int32(np.arange(9) < n),
            "label": np.int32((np.arange(9) < n) * label),
        }
        for n, label in ((5, 1), (3, 0), (0, 0))
    ]


def test_tokens_and_a_label():
    objective, model = NextTokenAndLabel(), labelled(2)
    check_needs(objective, model)
    made = [objective.examples()(row, np.random.default_rng(0)) for row in records()]
    rows = {name: np.stack([one[name] for one in made]) for name in made[0]}
    given = np.stack([row["tokens"] for row in records()])
    np.testing.assert_array_equal(rows["tokens"], given[:, :-1])
    np.testing.assert_array_equal(rows["lm/targets"], given[:, 1:])
    np.testing.assert_array_equal(rows["lm/weights"].sum(1), [4, 2, 0])
    np.testing.assert_array_equal([rows["label/targets"], rows["label/weights"]], [[1, 0, 0], [1, 1, 0]])
    params = toys.values(model.spec())
    loss = objective(model, params, rows, Ctx())
    scores = model(params, {name: rows[name] for name in ("tokens", "segments", "positions")})
    means = [
        (nll(scores[name], rows[f"{name}/targets"]) * rows[f"{name}/weights"]).sum() / rows[f"{name}/weights"].sum()
        for name in ("lm", "label")
    ]
    np.testing.assert_allclose(loss.total / loss.weight, 0.5 * means[0] + means[1], rtol=1e-5)
    only = NextTokenAndLabel(only=0).examples()
    weights = [only(row, np.random.default_rng(0))["lm/weights"].sum() for row in records()]
    assert weights == [0, 2, 0]


def test_labels_beside_tokens_are_as_many_as_the_head_has():
    with pytest.raises(UserError, match=r"has 2 classes, and model\.head 3 outputs"):
        check_needs(NextTokenAndLabel(), labelled(3))
    with pytest.raises(UserError, match="only=2 is no class: give 0 to 1"):
        NextTokenAndLabel(only=2)
    with pytest.raises(UserError, match="packing=one"):
        check_packing(NextTokenAndLabel(), "best-fit")
