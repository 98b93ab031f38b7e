"""Batches of several sizes on the same tokens: plans, learning rates, and the table of results made up."""

import numpy as np
import pytest
from rich.console import Console

from experiments.batches import FACTORS, FLAGS, batched, best, lines, name_of, plot, rates_of, table
from experiments.trials import CONTEXT


def test_every_plan_reads_the_same_rows_in_the_same_order():
    order = np.random.default_rng(0).permutation(32)
    plans = [((4, 1.0),), ((8, 1.0),), ((4, 0.5), (8, 0.5))]
    assert all(np.concatenate(batched(order, plan)).tolist() == order.tolist() for plan in plans)
    assert [len(batch) for batch in batched(order, plans[2])] == [4, 4, 4, 4, 8, 8]


def test_the_rate_follows_the_tokens():
    batches = [np.zeros(n) for n in (4, 4, 8)]
    few, many = rates_of(batches, 2.0), rates_of([np.zeros(1)] * 1600, 2.0)
    np.testing.assert_allclose(few, np.interp([2, 6, 12], (np.arange(1600) + 0.5) / 100, many), rtol=1e-2)
    assert many.max() == pytest.approx(2.0, rel=1e-3) and many[-1] == pytest.approx(0.2, rel=1e-3)
    assert many[40] == pytest.approx(1.0, rel=0.02)  # half-way through the warm-up


def test_batches_are_compared_at_their_best_rates(tmp_path):
    FLAGS.mark_as_parsed()
    sizes, results = [4, 8], {"noise": {"half-way": [900.0, 100.0], "at the end": [float("nan")] * 2}}
    for size, loss in ((4, 3.0), (8, 3.1)):
        for factor in FACTORS:
            for seed in range(2):
                worse = 0.1 * abs(np.log2(factor) - (size == 8))
                results[name_of(((size, 1.0),), factor, seed)] = loss + worse + 0.02 * seed * (size == 8)
    for seed in range(2):
        results[name_of(((4, 0.5), (8, 0.5)), 1.0, seed)] = 2.99
    assert (best(results, 4), best(results, 8)) == (1.0, 2.0)
    console = Console(record=True, width=140)
    console.print(table(results, sizes, 64 * CONTEXT, seeds=2))
    shown = console.export_text()
    assert "3.000 ± 0.000" in shown and "3.110 ± 0.010" in shown and "+0.110 ± 0.010" in shown
    assert "-0.010 ± 0.000" in shown
    assert lines(results)[0] == "noise scale half-way: 900 ± 100 tokens"
    plot(results, sizes, 2, tmp_path / "batches.png")
    assert (tmp_path / "batches.png").stat().st_size > 10_000
