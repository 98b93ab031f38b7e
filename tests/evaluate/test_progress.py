"""What an evaluation tells while it goes on: the batches themselves are handed on unchanged."""

import numpy as np

from lm.evaluate import progress


def test_plain_lines_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)  # a line for each batch
    batches = [
        {"weights": np.ones((2, 5), np.float32)},
        {"weights": np.eye(4, dtype=np.float32)},
        {"weights": np.ones(3)},
    ]
    assert list(progress.watched(iter(batches), 17)) == batches
    shown = capsys.readouterr()
    first, second, third = shown.err.splitlines()
    assert not shown.out
    assert first == "scored 0 of 17 tokens, compiling"  # the first batch has only been started
    assert second.startswith("scored 10 of 17 tokens, ") and " tokens/s, " in second and second.endswith(" left")
    assert third.startswith("scored 14 of 17 tokens, ")


def test_nothing_is_told_of_what_is_over_at_once(capsys):
    assert len(list(progress.watched([{"weights": np.ones(3)}], 3))) == 1
    assert capsys.readouterr() == ("", "")
