"""What repeated data are worth: plans, tables, and fits of runs that a law made up."""

import numpy as np
import pytest
from rich.console import Console

from experiments.repeated import epochs_of, fits_of, lines, plot, runs_of, table
from experiments.trials import ROWS, shuffled
from lm.core.errors import UserError
from scaling.laws import Law, Repeated

TRUE = Repeated(E=1.7, A=90.0, B=40.0, alpha=0.45, beta=0.45, RD=6.0, RN=4.0)


def records(law: Law, noise: float = 0.0) -> list[dict]:
    rng, made = np.random.default_rng(0), []
    for width, params in ((32, 4e4), (64, 1.2e5), (128, 4e5)):
        for seed in range(2):
            for unique, epochs in runs_of([1, 2, 4, 8, 16], 512):
                tokens = unique * epochs * 1000.0
                loss = law.predict(params, tokens, unique * 1000.0) * np.exp(noise * rng.normal())
                record = {"width": width, "params": int(params), "tokens": tokens, "epochs": epochs, "seed": seed}
                made.append(record | {"unique_tokens": unique * 1000.0, "loss": float(loss)})
    return made


def test_runs_repeat_a_part_of_what_a_fresh_run_reads():
    assert runs_of([1, 2, 16], 64) == [(32, 1), (64, 1), (32, 2), (4, 16)]  # 4 steps are too few to stand alone
    assert epochs_of(["4", "2"], 8) == [1, 2, 4]
    with pytest.raises(UserError, match="--epochs=3 must be a number of times that divides --steps=8"):
        epochs_of(["3"], 8)


def test_each_epoch_has_every_row_once_in_an_order_of_its_own():
    first, second = shuffled(np.arange(4 * ROWS), 2, seed=1).reshape(2, -1)
    assert sorted(first) == sorted(second) == list(range(4 * ROWS)) and list(first) != list(second)
    np.testing.assert_array_equal(shuffled(np.arange(4 * ROWS), 1, seed=1).ravel(), first)


def test_the_table_has_both_losses_and_a_fit_says_why_there_is_none(tmp_path):
    console = Console(record=True, width=140)
    few = [r for r in records(TRUE) if r["width"] == 64]
    console.print(table(few))
    (shown,) = [line for line in console.export_text().splitlines() if line.startswith("│ 16 ")]
    repeating = TRUE.predict(1.2e5, 512e3, 32e3)
    assert f"{repeating:.3f} ± 0.000" in shown and f"{TRUE.predict(1.2e5, 32e3, 32e3):.3f} ± 0.000" in shown
    fits = fits_of(few)
    assert lines(fits) == [f"no law of fresh data, and so none of repeated: {fits['base']}"]
    plot(few, fits, tmp_path / "repeated.png")
    assert (tmp_path / "repeated.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_decay_of_repetition_is_found_with_its_interval(tmp_path):
    runs = records(TRUE, noise=1e-3)
    fits = fits_of(runs)
    constants, (low, high) = fits["repeated"]["constants"], fits["repeated"]["intervals"]["RD"]
    assert constants["RD"] == pytest.approx(TRUE.RD, rel=0.15) and low < TRUE.RD < high
    assert fits["repeated"]["error"] < 1 < fits["over-fitting"]["error"] * 100
    plot(runs, fits, tmp_path / "repeated.png")
