"""Models that learn side by side from the same rows, and texts that belong together."""

import jax
import numpy as np
import pytest

from lm.core.component import from_dict, to_dict
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.rows import with_totals
from lm.model.heads import SequenceClassifier
from lm.objectives.causal import NextToken
from lm.objectives.contrastive import Contrastive
from lm.objectives.labels import Classification
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import check_needs
from lm.objectives.together import Together
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.bert import bert
from lm.zoo.ernie3 import ernie3_pair
from tests import toys

SHAPE = {"layers": 1, "d_model": 8, "heads": 2, "task_layers": 1, "task_d_model": 4, "task_heads": 1, "memory": 4}
PAIR = ernie3_pair(vocab=384, **SHAPE)
PARTS = (("understanding", 1.0, MaskedTokens(0.3)), ("generation", 2.0, NextToken()))


def stacked(objective, rows: list[dict]) -> dict:
    build = objective.examples(ByteTokenizer())
    made = [build(row, np.random.default_rng(i)) for i, row in enumerate(rows)]
    return {name: np.stack([one[name] for one in made]) for name in made[0]}


def texts(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    segments = np.array([1, 1, 1, 1, 1, 2, 2, 2, 0], np.int32)
    return [{"tokens": rng.integers(3, 259, 9).astype(np.int32), "segments": segments} for _ in range(count)]


def test_each_model_learns_by_its_own_objective():
    together, params = Together(PARTS), toys.values(PAIR.spec())
    check_needs(together, PAIR)
    rows, own, models = stacked(together, texts(2)), PAIR.resolve(params), dict(PAIR.parts)
    loss = together(PAIR, params, rows, Ctx())
    means = {}
    for name, _, objective in PARTS:
        inputs = {k: rows[f"{name}/{k}" if name == "understanding" else k] for k in ("tokens", "segments", "positions")}
        named = {k: rows[f"{name}/{k}"] for k in ("targets", "weights")}
        alone = objective(models[name], own[name], inputs | named, Ctx())
        means[name] = alone.total / alone.weight
        np.testing.assert_allclose(loss.metrics[f"{name}/loss"].value, means[name], rtol=1e-5)
    np.testing.assert_allclose(loss.total / loss.weight, means["understanding"] + 2 * means["generation"], rtol=1e-5)
    parts = [together(PAIR, params, {k: v[i : i + 1] for k, v in with_totals(rows).items()}, Ctx()) for i in range(2)]
    np.testing.assert_allclose(sum(part.total for part in parts), loss.total, rtol=1e-5)
    assert from_dict(to_dict(together)) == together


def test_what_one_objective_asks_of_the_data_all_do():
    needs = Together((("understanding", 1.0, Classification(3)), PARTS[1])).needs()
    assert needs.alone and needs.classes == 3 and needs.channels == ("label",)


@pytest.mark.parametrize("parts", [(), (PARTS[0], PARTS[0]), (("a", -1.0, NextToken()),)])
def test_wrong_parts(parts):
    with pytest.raises(UserError, match=r"name each model once|weight of 'a'"):
        Together(parts)


def pairs(count: int) -> list[dict]:
    part = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0], np.int32)
    segments = np.array([1] * 7 + [0, 0], np.int32)
    return [row | {"segments": segments, "part": part} for row in texts(count)]


def test_a_text_is_nearest_to_its_own():
    model = bert(layers=1, d_model=8, heads=2, vocab=384, context=8)
    model = type(model)(model.body, SequenceClassifier(4))
    objective, params = Contrastive(0.5, length=6), toys.values(model.spec())
    check_needs(objective, model)
    rows = stacked(objective, pairs(4))
    given = pairs(4)
    np.testing.assert_array_equal(rows["tokens"][:, :3], [row["tokens"][:3] for row in given])
    np.testing.assert_array_equal(rows["other/tokens"][:, :4], [row["tokens"][3:7] for row in given])
    assert rows["segments"].sum() == 12 and rows["other/segments"].sum() == 16
    rows["pair/weights"][3] = 0  # a row of padding is nobody's negative
    a, b = (
        np.asarray(model(params, {k: rows[side + k] for k in ("tokens", "segments", "positions")}))[:3]
        for side in ("", "other/")
    )
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logs = [np.asarray(jax.nn.log_softmax(c / 0.5)) for c in (a @ b.T, b @ a.T)]
    want = -sum(np.diag(log).sum() for log in logs) / 2
    loss = objective(model, params, rows, Ctx())
    assert jax.tree.structure(model.update(params, loss.aux)) == jax.tree.structure(params)
    np.testing.assert_allclose([loss.total, loss.weight], [want, 3], rtol=1e-5)


def test_the_same_text_twice_differs_by_dropout():
    model = bert(layers=1, d_model=8, heads=2, vocab=384, context=8, dropout=0.3)
    model = type(model)(model.body, SequenceClassifier())
    objective, params = Contrastive(0.5, length=8, same=True), toys.values(model.spec())
    rows = stacked(objective, [row | {"segments": np.minimum(row["segments"], 1)} for row in texts(2)])
    still, drawn = (objective(model, params, rows, Ctx(key=key)) for key in (None, jax.random.key(1)))
    assert still.metrics["accuracy"].value == 1 and toys.differ(still.total, drawn.total)
