"""The comparison of objectives: what its yardstick asks for, and a short run."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.yardstick import Continued, corpus, mean_and_error


@pytest.mark.parametrize(
    "form",
    [
        Continued(prefix=False),
        Continued(lead=(90,), between=(1,)),
        Continued(between=(80, 1), opening=(80,)),
        Continued(between=(80, 1), again=True),
    ],
)
def test_all_forms_ask_for_the_same_bytes(form):
    tokens = np.arange(10, 19)
    row = {"tokens": tokens, "segments": np.ones(9, int), "bytes": np.arange(9)}
    made = form(row, np.random.default_rng(0))
    asked = made["weights"] > 0
    np.testing.assert_array_equal(made["targets"][asked], tokens[5:])
    np.testing.assert_array_equal(made["bytes"][asked], [5, 6, 7, 8])
    seen = made["prefix"] if form.prefix else np.zeros(len(asked), bool)
    assert not set(made["tokens"][seen]) & set(tokens[5:])
    assert not form(row | {"segments": np.repeat([1, 0], [8, 1])}, np.random.default_rng(0))["weights"].any()


def test_labels_without_a_table_are_made_of_code(tmp_path):
    assert corpus(tmp_path, tmp_path / "absent", tmp_path / "absent") == ("ordered", "shuffled")
    labelled = [json.loads(line) for line in (tmp_path / "labelled.jsonl").read_text().splitlines()]
    assert 0.4 < np.mean([record["label"] == "shuffled" for record in labelled]) < 0.6 and len(labelled) > 500


def test_the_error_of_a_mean():
    mean, error = mean_and_error([1.0, 2.0, 3.0])
    assert (mean, error) == (2.0, pytest.approx(1 / 3**0.5))


@pytest.mark.slow
def test_a_short_run(tmp_path):
    words = [f"--out={tmp_path}", "--quick", "--only=causal,masked", "--addresses=none.gz", "--book=none.txt"]
    done = subprocess.run([sys.executable, "-m", "experiments.objectives", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {r["objective"]: r for r in json.loads((tmp_path / "results.json").read_text())}
    assert found["masked"]["bits_per_byte"] is None and 1 < found["causal"]["bits_per_byte"] < 6
    assert all(0 <= r["accuracy"] <= 1 for r in found.values())
    assert (tmp_path / "objectives.png").exists() and "causal" in (tmp_path / "table.txt").read_text()
