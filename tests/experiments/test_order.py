"""Orders with a plan, and the table of results made up; and that the experiments on rows, order and batches run."""

import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments.order import PLANS, planned, plot, spread, surprise, table
from experiments.trials import ROWS
from tests.train import tiny


def test_plans_sort_all_rows():
    rng = np.random.default_rng(0)
    hard, rare = rng.random((2, 3 * ROWS))
    orders = {plan: planned(plan, hard, rare) for plan in PLANS}
    assert all(sorted(order.ravel()) == list(range(3 * ROWS)) for order in orders.values())
    assert np.all(np.diff(hard[orders["easy first"].ravel()]) >= 0)
    assert np.all(np.diff(hard[orders["hard first"].ravel()]) <= 0)
    assert np.all(np.diff(rare[orders["common first"].ravel()]) >= 0)
    assert np.all(np.diff(rare[orders["rare first"].ravel()]) <= 0)


def test_rare_tokens_surprise():
    by_row = surprise({"targets": np.array([[1, 1, 1, 1], [1, 1, 2, 3]])})
    np.testing.assert_allclose(by_row, [-np.log(6 / 8), (-2 * np.log(6 / 8) - 2 * np.log(1 / 8)) / 4])


def test_a_plan_is_compared_init_by_init(tmp_path):
    results = {"inits": {"0": 3.0, "1": 3.2, "2": 3.1}, "shuffles": {"0": 3.0, "1": 3.02}}
    results |= {plan: {"0": 3.5, "1": 3.72} for plan in PLANS}
    assert spread([3.0, 3.2]) == pytest.approx((0.1414, 0.1), abs=1e-4)
    console = Console(record=True, width=140)
    console.print(table(results))
    shown = console.export_text()
    assert "+0.5100 ± 0.0100" in shown and "0.1000 ± 0.0500" in shown and "0.0141 ± 0.0100" in shown
    plot(results, tmp_path / "order.png")
    assert (tmp_path / "order.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["repeated", "order", "batches"])
def test_the_commands(experiment, tmp_path):
    source = tmp_path / "text.txt"
    source.write_text("\n".join(path.read_text() for path in sorted((tiny.ROOT / "lm/core").glob("*.py"))))
    out = tmp_path / "out"
    command = [sys.executable, "-m", f"experiments.{experiment}", "--quick", f"--out={out}", f"--source={source}"]
    for _ in range(2):  # the second time from what is there
        done = subprocess.run(command, cwd=tiny.ROOT, env=tiny.one_device(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "held-out loss" in (out / "table.txt").read_text() and (out / f"{experiment}.png").exists()
    assert " s\n" not in done.stderr, "nothing was trained anew"
