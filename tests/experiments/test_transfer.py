"""The tables and pictures of experiments/transfer.py, from losses made up."""

import numpy as np
import pytest
from rich.console import Console

from experiments.transfer import FLAGS, KINDS, RATES, SIZES, best, config_of, plot, table
from lm.train.setup import assemble


def valley(at: float, least: float) -> list[float]:
    return [least + 0.1 * (np.log2(rate) - at) ** 2 for rate in RATES]


def test_the_best_rate_lies_between_those_tried():
    assert best(valley(-5.3, 2.0)) == pytest.approx((-5.3, 2.0))
    assert best(valley(-12.0, 2.0)) == pytest.approx((-9.0, 2.9))  # an edge
    assert best([3.0, 2.0, None, None, None, None, None]) == (-8.0, 2.0)


def test_a_rate_that_does_not_transfer_is_told_and_drawn(tmp_path):
    results = {}
    for what, kinds in KINDS.items():
        for kind in kinds:
            for i, n in enumerate(SIZES[what]):
                results[f"{what} {kind} {n}"] = valley(-5.0 - (i if kind == "standard" else 0), 2.0 - 0.1 * i)
    results["width standard 128"][4:] = [None] * 3
    console = Console(record=True, width=120)
    console.print(table(results))
    rows = [line.split("│")[2:-1] for line in console.export_text().splitlines() if "│ width" in line]
    shown = {(kind.strip(), size.strip()): lost.strip() for kind, size, *_, lost in rows}
    assert shown["muP", "128"] == "0.000" and shown["standard", "64"] == "0.100"
    assert shown["standard", "128"] == "diverged"
    plot(results, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 20_000


def test_a_model_takes_its_multipliers_from_the_base():
    FLAGS.mark_as_parsed()
    wide, small = (tuple(SIZES["width"][d].items()) for d in (128, 32))
    assert assemble(config_of(wide, small, 1.0, 20)).model.head.scale == 32 / 128
    assert assemble(config_of(wide, (), 1.0, 20)).model.head.scale == 1
