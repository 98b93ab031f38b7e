"""What a sweep shows of itself while it runs."""

import io
import json

import pytest
from rich.console import Console

from scaling.live import Unit, View


@pytest.fixture
def units(tmp_path):
    (tmp_path / "progress").mkdir()
    for unit, flops in ((0, 10), (1, 5)):
        (tmp_path / "progress" / f"{unit}.json").write_text(json.dumps({"flops": flops}))
    return {i: Unit(f"d{8 * i + 8} x 1", (f"cell{i}",), 1, 10) for i in range(4)}


def test_a_terminal_has_a_table(tmp_path, units):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with View(tmp_path, units, console) as view:
        view.show({1, 2, 3}, {0: "done"}, {1: 1})
    shown = console.file.getvalue()
    rows = {line.split("│")[1].strip(): line for line in shown.splitlines() if line.count("│") == 5}
    assert "1 of 4 units, " in shown and "min left" in shown
    assert "100%" in rows["d8 x 1"] and "done" in rows["d8 x 1"]
    assert "50%" in rows["d16 x 1"] and "runs, attempt 2" in rows["d16 x 1"]
    assert "0%" in rows["d24 x 1"] and "waits" in rows["d24 x 1"]


def test_elsewhere_there_are_lines(tmp_path, units):
    console = Console(file=io.StringIO(), width=100)
    with View(tmp_path, units, console) as view:
        view.show({1, 2, 3}, {0: "done"}, {})
        view.tell("a run ended")
    assert console.file.getvalue().startswith("a run ended; 0.")


def test_a_unit_that_ended_early_leaves_nothing_to_do(tmp_path, units):
    with View(tmp_path, units, Console(file=io.StringIO())) as view:
        assert view.left() > 0
        view.show(set(), dict.fromkeys(units, "done"), {})
        assert view.left() == 0
