"""The tables and pictures of experiments/transfer.py, from losses made up."""

import numpy as np
import pytest
from rich.console import Console

from experiments.transfer import FLAGS, KINDS, RATES, SIZES, best, name_of, parametrized, plot, table
from lm.train.setup import assemble


def valley(at: float, least: float) -> list[float]:
    return [least + 0.1 * (np.log2(rate) - at) ** 2 for rate in RATES]


def test_the_best_rate_lies_between_those_tried():
    assert best(valley(-5.3, 2.0)) == pytest.approx((-5.3, 2.0))
    assert best(valley(-11.0, 2.0)) == pytest.approx((-9.0, 2.4))  # an edge
    assert best([3.0, 2.0, None, None, None, None]) == (-8.0, 2.0)


def test_a_rate_that_does_not_transfer_is_told_and_drawn(tmp_path):
    results = {}
    for what, kinds in KINDS.items():
        for kind in kinds:
            for i, n in enumerate(SIZES[what]):
                found = valley(-5.0 - (i if kind == "standard" else 0), 2.0 - 0.1 * i)
                for rate, loss in zip(RATES, found, strict=True):
                    for seed, off in enumerate((-0.03, 0.03)):
                        gone = (what, kind, n) == ("width", "standard", 128) and rate > 2**-6
                        results[name_of(what, kind, n, rate, seed)] = None if gone and seed else loss + off
    console = Console(record=True, width=120)
    console.print(table(results, 2))
    rows = [line.split("│")[2:-1] for line in console.export_text().splitlines() if "│ width" in line]
    shown = {(kind.strip(), size.strip()): [cell.strip() for cell in rest] for kind, size, *rest in rows}
    assert shown["muP", "128"] == ["-5.0", "1.800", "1.800 ± 0.030", "0.000"]
    assert shown["standard", "64"] == ["-6.0", "1.900", "2.000 ± 0.030", "0.100"]
    assert shown["standard", "128"][2:] == ["-", "diverged"]
    plot(results, 2, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 20_000


def test_a_model_takes_its_multipliers_from_the_base():
    FLAGS.mark_as_parsed()
    wide, small = SIZES["width"][128], SIZES["width"][32]
    assert assemble(parametrized(wide, small, 1.0)).model.head.scale == 32 / 128
    assert assemble(parametrized(wide, small, None)).model.head.scale == 1
