"""Metrics of labels are scikit-learn's, however a batch is cut."""

import json
from pathlib import Path

import numpy as np
import pytest

from lm.core.metrics import F1, Pearson, added, values
from lm.core.rows import tokens_read
from lm.objectives.causal import NextToken
from lm.objectives.labels import Classification, NextTokenAndLabel, Regression
from lm.objectives.middle import FillInTheMiddle
from lm.objectives.mixed import Mixed
from lm.objectives.multi_token import MultiToken
from lm.objectives.objective import unit_of
from lm.objectives.replaced import ReplacedTokens

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "labels" / "metrics.json").read_text())


def parts(objective, scores, labels):
    """The metrics of three parts of these rows, the last of them padded with a row that does not count."""
    for of in np.array_split(np.arange(len(labels)), 3):
        weights = np.ones(len(of), np.float32)
        batch = {"targets": np.append(labels[of], labels[0]), "weights": np.append(weights, 0)}
        yield objective.loss_of(scores[[*of, 1]], batch).metrics


@pytest.mark.parametrize("case", GOLDEN["classes"])
def test_classes(case):
    labels, predicted, classes = np.int32(case["labels"]), np.int32(case["predicted"]), case["classes"]
    heads = [np.eye(classes, dtype=np.float32)[predicted]]
    if classes == 2:
        heads.append(np.float32(predicted * 2 - 1)[:, None])
    for scores in heads:
        whole = added(parts(Classification(classes), scores, labels))
        macro = whole["macro_f1"]
        found = values(whole | {"micro_f1": F1(*(np.sum(x) for x in macro))})
        assert found["tokens"] == len(labels)
        for name, score in case["scores"].items():
            assert found[name] == pytest.approx(score, abs=1e-6), name


def test_values():
    case = GOLDEN["values"]
    labels = np.float32(case["labels"])
    found = values(added(parts(Regression(), np.float32(case["predicted"])[:, None], labels)))
    assert found["pearson"] == pytest.approx(case["scores"]["pearson"], abs=1e-5)
    assert found["loss"] == pytest.approx(case["scores"]["loss"], rel=1e-5)


def test_scores_that_are_undefined_are_left_out():
    assert values({"pearson": Pearson(3, 3, 6, 3, 14, 6), "f1": F1(0, 0, 0)}) == {}


def test_speed_counts_all_tokens_that_are_read():
    segments = np.array([[1, 1, 0], [1, 2, 2]])
    assert tokens_read({"segments": segments, "encoder/segments": segments[:1], "tokens": segments}) == 5 + 2


@pytest.mark.parametrize(
    ("objective", "unit"),
    [
        (NextToken(), "nats per token"),
        (MultiToken(), "nats per token"),
        (Mixed(((1.0, "a", NextToken()), (1.0, "b", FillInTheMiddle()))), "nats per token"),
        (Classification(), ""),
        (Regression(), ""),
        (NextTokenAndLabel(), ""),
        (ReplacedTokens(), ""),
    ],
    ids=lambda x: type(x).__name__,
)
def test_only_losses_of_tokens_are_nats_per_token(objective, unit):
    assert unit_of(objective) == unit
