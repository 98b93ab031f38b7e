"""Experts against dense layers: equal cost, and a short run."""

import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments.moe import CONTEXT, FLAGS, KINDS, against_dense, model_of, result_of
from lm.core.errors import UserError
from lm.core.param import count
from lm.inspect.cost import active_parameters, training_flops


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dense"])
def test_a_token_costs_what_it_does_in_the_dense_model(kind):
    """But for the router."""
    dense, sparse = model_of("dense"), model_of(kind)
    assert 1 <= active_parameters(sparse) / active_parameters(dense) < 1.03
    assert 1 <= training_flops(sparse, CONTEXT) / training_flops(dense, CONTEXT) < 1.07
    assert count(sparse.spec()) > 2 * count(dense.spec())


def test_a_run_is_compared_with_the_dense_one_of_its_seed():
    """Not with another, as happens when a run is missing."""
    losses = [("dense", 0, [4.0, 3.0]), ("dense", 1, [5.0, 2.0]), ("glam", 1, [4.5, 1.0])]
    found = [{"model": model, "seed": seed, "losses": of_steps} for model, seed, of_steps in losses]
    np.testing.assert_array_equal(against_dense(found, "glam"), [[-0.5, -1.0]])


def test_results_of_another_length_are_not_taken_for_these(tmp_path):
    FLAGS(["moe", f"--out={tmp_path}"])
    (tmp_path / "dense-0").mkdir()
    (tmp_path / "dense-0/result.json").write_text(json.dumps({"steps": [3, 6], "losses": [4.0, 3.0]}))
    assert result_of("dense", 0, 6, Console())["losses"] == [4.0, 3.0]
    with pytest.raises(UserError, match=r"result.json is of 6 steps, not --steps=12: give another --out"):
        result_of("dense", 0, 12, Console())


@pytest.mark.slow
def test_a_short_run(tmp_path):
    words = [f"--out={tmp_path}", "--quick", "--only=dense,switch"]
    done = subprocess.run([sys.executable, "-m", "experiments.moe", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {r["model"]: r for r in json.loads((tmp_path / "results.json").read_text())}
    assert all(r["losses"][-1] < r["losses"][0] for r in found.values())
    assert (tmp_path / "moe.png").exists() and "switch" in (tmp_path / "table.txt").read_text()
