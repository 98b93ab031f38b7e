"""Runs that meet a bad batch: they stop, leave its step out, or go back: to pass over a window of batches, to draw the
order of rows anew, or to go on at a lower rate."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.goodput import read_ledger
from lm.runs.metrics import read_metrics
from lm.train import loop
from lm.train.optim.schedule import Cosine
from lm.train.step import Trainer
from tests.train import tiny

BAD = 13  # the address of the batch that spoils a step: step 14


@pytest.fixture
def spoiled(monkeypatch):
    """Address BAD has weights that are no numbers. Returns the addresses that were asked for."""
    asked = []
    batch = Batches.batch

    def spoil(self, k, rows=None):
        asked.append(self.address(k))
        made = batch(self, k, rows)
        if self.address(k) == BAD:
            made["weights"] = np.full_like(made["weights"], np.nan)
        return made

    monkeypatch.setattr(Batches, "batch", spoil)
    tiny.use_one_device(monkeypatch)
    return asked


def run(folder: Path, workdir: str, steps: int = 24, **recovery) -> str:
    config = tiny.config(folder)
    config.train.steps = steps
    config.log.update(every=4, checkpoint_every=4, eval_every=0, keep=9)
    config.train.recovery.update({"back": 3, "skip": 6} | recovery)
    console = Console(file=io.StringIO(), width=1000)
    loop.train(config, folder / workdir, console)
    return console.file.getvalue()


def events(workdir: Path) -> list[dict]:
    return [r for r in read_metrics(workdir / "metrics.jsonl") if "event" in r]


def test_by_default_a_run_stops(tmp_path, spoiled):
    with pytest.raises(UserError, match=r"^step 14: loss nan.*the run diverged.*recovery.action=rewind"):
        run(tmp_path, "run")
    assert Checkpoints(tmp_path / "run", read_only=True).latest == 12


def test_a_skipped_step_is_told_and_changes_nothing(tmp_path, spoiled):
    output = run(tmp_path, "run", action="skip")
    assert "step 14: loss nan" in output and "its update is left out" in output
    assert [(e["event"], e["step"]) for e in events(tmp_path / "run")] == [("skip", 14)]
    assert [line["step"] for line in read_ledger(tmp_path / "run/goodput.jsonl") if "skipped" in line] == [16]
    opened = open_model(tmp_path / "run")
    assert opened.step == 24 and all(np.isfinite(x).all() for x in tiny.leaves(opened.params))


def test_a_rewind_passes_over_the_bad_batch(tmp_path, spoiled, monkeypatch):
    programs = []
    make = Trainer.jitted
    monkeypatch.setattr(Trainer, "jitted", lambda self, state: programs.append(make(self, state)) or programs[-1])
    output = run(tmp_path, "run", action="rewind")
    assert "back to step 8, then past 6 batches from step 10 on" in " ".join(output.split())
    assert programs[-1]._cache_size() == 1, "a restored state runs by the same program"
    (event,) = events(tmp_path / "run")
    assert (event["event"], event["step"], event["to"]) == ("rewind", 14, 8)
    steps = [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl") if "loss" in r and "event" not in r]
    assert steps == sorted(set(steps)) and steps[-1] == 24
    (back,) = [line for line in read_ledger(tmp_path / "run/goodput.jsonl") if line.get("event") == "rewind"]
    assert (back["step"], back["to"]) == (16, 8) and "recovery" in output
    assert (tmp_path / "run/loss.png").stat().st_size > 1000
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    meta = checkpoints.meta(24)
    assert meta["skips"] == [[10, 6]] and meta["events"] == [event]

    # The stream after it is that of a run which had the skip from the beginning.
    spoiled.clear()
    config = tiny.config(tmp_path)
    config.train.steps = 24
    monkeypatch.setattr(Batches, "address", lambda self, k: k + 6 * (k >= 10))
    config.log.update(every=4, checkpoint_every=0, eval_every=0)
    loop.train(config, tmp_path / "told", Console(file=io.StringIO()))
    ends = [tiny.bits(open_model(tmp_path / w).params) for w in ("run", "told")]
    assert ends[0] == ends[1]
    assert BAD not in spoiled and {9, 16} <= set(spoiled)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_skips(tmp_path, spoiled):
    run(tmp_path, "whole", steps=24, action="rewind")
    run(tmp_path, "parts", steps=24, action="rewind")
    # Back to step 16, as a kill would have it.
    for folder in (tmp_path / "parts/checkpoints").iterdir():
        if int(folder.name) > 16:
            for file in sorted(folder.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            folder.rmdir()
    assert "resumed at step 16" in run(tmp_path, "parts", steps=24, action="rewind")
    assert len(events(tmp_path / "parts")) == 1
    ends = [tiny.bits(open_model(tmp_path / w).params) for w in ("whole", "parts")]
    assert ends[0] == ends[1]


@pytest.fixture
def spoiled_once(monkeypatch):
    """Address BAD has such weights when it is built for the first time."""
    spent = []
    batch = Batches.batch

    def spoil(self, k, rows=None):
        made = batch(self, k, rows)
        if self.address(k) == BAD and len(made["weights"]) > 1 and not spent:
            spent.append(k)
            made["weights"] = np.full_like(made["weights"], np.nan)
        return made

    monkeypatch.setattr(Batches, "batch", spoil)
    tiny.use_one_device(monkeypatch)
    return spent


@pytest.mark.slow
@pytest.mark.parametrize("action", ["reshuffle", "lower"])
def test_a_run_that_went_back_is_resumed_to_the_bit(tmp_path, spoiled_once, action):
    output = " ".join(run(tmp_path, "whole", action=action).split())
    (event,) = events(tmp_path / "whole")
    assert (event["event"], event["step"], event["to"]) == (action, 14, 8)
    meta = Checkpoints(tmp_path / "whole", read_only=True).meta(24)
    assert meta["events"] == [event] and meta["skips"] == []
    figures = {r["step"]: r for r in read_metrics(tmp_path / "whole/metrics.jsonl") if "event" not in r}
    if action == "lower":
        assert "back to step 8, from there on the learning rate times 0.5" in output
        schedule = [figures[step]["learning_rate"] for step in (8, 12, 16)]
        wanted = [1e-3 * float(Cosine(warmup=4)(step - 1, 24)) for step in (8, 12, 16)]
        assert schedule == pytest.approx([wanted[0], wanted[1] / 2, wanted[2] / 2], rel=1e-5)
    else:
        assert "back to step 8, then rows in another order from step 10 on" in output
        assert event["rows"] == [10 * tiny.ROWS]

    spoiled_once.clear()
    run(tmp_path, "parts", action=action)
    for folder in (tmp_path / "parts/checkpoints").iterdir():  # as a kill would have it
        if int(folder.name) > 16:
            shutil.rmtree(folder)
    assert "resumed at step 16" in run(tmp_path, "parts", action=action)
    assert len(events(tmp_path / "parts")) == 1
    ends = [tiny.bits(open_model(tmp_path / w).params) for w in ("whole", "parts")]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_rewind_to_the_beginning(tmp_path, spoiled):
    output = run(tmp_path, "run", action="rewind", back=13, skip=20)
    assert "back to step 0, then past 20 batches from step 0 on" in " ".join(output.split())
    assert open_model(tmp_path / "run").step == 24


def test_too_many_bad_steps_end_the_run(tmp_path, spoiled, monkeypatch):
    monkeypatch.setattr(Batches, "address", lambda self, k: BAD if k % 5 == 0 else k)
    with pytest.raises(UserError, match=r"bad step number 3 of this run, more than config.train.recovery.limit=2"):
        run(tmp_path, "run", action="skip", limit=2)
    assert all(json.dumps(e) for e in events(tmp_path / "run"))


def test_a_window_that_misses_the_bad_batch(tmp_path):
    with pytest.raises(UserError, match=r"recovery.skip=3 does not reach the bad batch from back=3"):
        run(tmp_path, "run", action="rewind", skip=3)
