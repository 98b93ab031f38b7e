"""A run in stages: other sources, rates, lengths and objectives from some steps on, each batch by its address."""

import dataclasses
import io
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.objectives.causal import NextToken
from lm.objectives.token_loss import TokenLoss
from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.metrics import read_metrics
from lm.train import loop
from lm.train.setup import assemble
from lm.train.stages import stages_of
from lm.train.step import Trainer
from tests.train import tiny

OTHER = to_dict(NextToken(TokenLoss(z_loss=1e-3)))


def config(folder):
    """Three stages of four steps: the rates change, then length and objective."""
    c = tiny.config(folder)
    other = folder / "other.txt"
    if not other.exists():
        other.write_text("".join(f"{n} bottles of beer\n" for n in range(300)))
    one, two = c.data.source, str(other)
    c.data.mixture = ((one, 1.0), (two, 1.0))
    c.log.update(checkpoint_every=2)
    c.stages = (
        (4, {"data.mixture": ((two, 3.0), (one, 1.0))}),
        (8, {"data.mixture": ((one, 1.0),), "data.length": 8, "objective": OTHER}),
    )
    return c


def rows_of(batch):
    return [tuple(row) for row in batch["tokens"]]


def test_a_source_goes_on_where_it_stopped(tmp_path):
    staged = assemble(config(tmp_path)).batches
    first, second = staged.stages[0][1], staged.stages[1][1]
    assert (first.known, second.known, staged.stages[2][1].known) == ((0, 1), (1, 0), (2,))
    assert staged.rows_by(4) == (16, 16) and staged.rows_by(8) == (24, 40)
    plain = assemble(tiny.config(tmp_path)).batches
    one = [r for k in range(8) for r in rows_of(staged.batch(k)) if r in _known(plain)]
    assert one == [tuple(plain.row(n)["tokens"]) for n in range(24)], "in order, over the boundary"
    for k in (3, 4, 7, 8, 11):
        again = assemble(config(tmp_path)).batches.batch(k)
        assert all((again[key] == value).all() for key, value in staged.batch(k).items())
    assert staged.batch(8)["tokens"].shape == (tiny.ROWS, 8)
    # A skip before a boundary holds behind it.
    skipped = dataclasses.replace(staged, skips=((3, 2),))
    assert rows_of(skipped.batch(4)) == rows_of(staged.batch(6)) and rows_of(skipped.batch(2)) == rows_of(
        staged.batch(2)
    )
    for k, batch in zip(range(6, 10), staged.iterate(6), strict=False):
        assert rows_of(batch) == rows_of(staged.batch(k))


def _known(batches):
    return {tuple(batches.row(n)["tokens"]) for n in range(40)}


def test_a_run_in_stages(tmp_path, monkeypatch):
    tiny.use_one_device(monkeypatch)
    programs, make = [], Trainer.jitted
    monkeypatch.setattr(Trainer, "jitted", lambda self, state: programs.append(make(self, state)) or programs[-1])
    console = Console(file=io.StringIO(), width=1000)
    loop.train(config(tmp_path), tmp_path / "whole", console)
    output = console.file.getvalue()
    assert output.count("compiling the train step ...") == 2, "at the beginning, and for other shapes"
    assert [p._cache_size() for p in programs] == [1, 1]
    assert "step 4: stage 2 of 3 begins: data.mixture" in output and "step 8: stage 3 of 3 begins" in output
    records = read_metrics(tmp_path / "whole/metrics.jsonl")
    marks = [r for r in records if "event" in r]
    assert [(m["event"], m["step"]) for m in marks] == [("stage", 4), ("stage", 8)]
    assert marks[1]["changed"]["data.length"] == [16, 8]
    losses = {r["step"]: r for r in records if "loss" in r}
    assert losses[8]["tokens/other.txt"] > 2 * losses[8]["tokens/corpus.txt"] and losses[8]["tokens"] == 128
    assert "loss/other.txt" not in losses[9] and losses[9]["tokens"] <= 64
    assert Checkpoints(tmp_path / "whole", read_only=True).meta(12)["stages"] == marks

    c = config(tmp_path)
    c.stages = c.stages[:1]
    with pytest.raises(UserError, match=r"holds a run with stages"):
        loop.train(c, tmp_path / "whole", Console(file=io.StringIO()))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_bit_in_every_stage(tmp_path):
    """Killed in the second stage and in the third; and as kills leave it at a boundary."""
    experiment = tmp_path / "experiment.py"
    experiment.write_text(
        "import pathlib\nfrom tests.train import test_stages\n\n\ndef get_config():\n"
        "    return test_stages.config(pathlib.Path(__file__).parent)\n"
    )
    config(tmp_path)  # writes the corpora, whose times of writing name the token caches

    def start(workdir):
        command = [sys.executable, "-m", "lm.train", f"--config={experiment}", f"--workdir={tmp_path / workdir}"]
        return subprocess.Popen(command, env=tiny.one_device(), stderr=subprocess.PIPE)

    def finished(workdir):
        process = start(workdir)
        _, told = process.communicate(timeout=200)
        assert process.returncode == 0, told
        return tiny.bits(open_model(tmp_path / workdir).params)

    def figures(workdir):
        records = read_metrics(tmp_path / workdir / "metrics.jsonl")
        return {r["step"]: r["loss"] for r in records if "loss" in r}, [r for r in records if "event" in r]

    whole = finished("whole")
    for at in (5, 9):
        process = start("parts")
        while not any(r["step"] >= at for r in read_metrics(tmp_path / "parts/metrics.jsonl")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        process.communicate()
    assert finished("parts") == whole and figures("parts") == figures("whole")
    for folder in (tmp_path / "parts/checkpoints").iterdir():
        if int(folder.name) > 8:
            shutil.rmtree(folder)
    assert finished("parts") == whole and figures("parts") == figures("whole")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((5,), r"config.stages\[0\]=5 is no stage: write \(first step"),
        (
            ((0, {"data.length": 8}),),
            r"stages\[0\] begins at step 0: give a whole number after the beginning of the run",
        ),
        (
            ((6, {"data.length": 8}), (6, {"data.length": 9})),
            r"stages\[1\] begins at step 6: give a whole number after the beginning of the stage before it, at step 6",
        ),
        (((2.5, {"data.length": 8}),), r"begins at step 2.5: give a whole number"),
        (((12, {"data.length": 8}),), r"stages\[0\] begins at step 12, but the run ends at config.train.steps=12"),
        (((4, {}),), r"stages\[0\] changes nothing: name a knob"),
        (((4, {"data.lenght": 8}),), r"stages\[0\]: data.lenght is no knob; did you mean 'data.length'\?; a stage may"),
        (
            ((4, {"optimizer.clip": 8}),),
            r"stages\[0\]: optimizer.clip stays as it is through a run; a stage may change",
        ),
        (((4, {"data.length": "long"}),), r"stages\[0\]: config.data.length='long' is no int"),
        (((4, {"data.length": 0}),), r"stages\[0\]: config.data.length=0 must be at least 1"),
        (((4, {"objective.share": 0.3}),), r"stages\[0\]: config.objective.share is no knob"),
    ],
)
def test_stages_that_cannot_be(tmp_path, stages, message):
    c = tiny.config(tmp_path)
    c.stages = stages
    with pytest.raises(UserError, match=message):
        stages_of(c)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data.source": "nowhere.txt"}, r"config.stages, from step 4 on: .*nowhere.txt"),
        ({"data.length": 17}, r"from step 4 on: config.data.length=17 exceeds the model's 16 positions"),
        ({"objective": {"type": "MaskedTokens"}}, r"from step 4 on: .*tokens from both sides"),
        ({"data.packing": "stream"}, r"stream"),
    ],
)
def test_a_late_stage_is_checked_before_the_first_step(tmp_path, changed, message):
    c = tiny.config(tmp_path)
    c.stages = ((4, changed),)
    with pytest.raises(UserError, match=message):
        loop.train(c, tmp_path / "run", Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


def test_a_reshuffle_behind_a_boundary(tmp_path):
    staged = assemble(config(tmp_path)).batches
    rows = staged.rows_by(6)
    again = dataclasses.replace(staged, reshuffles=(rows,))
    for k in range(12):
        same = rows_of(again.batch(k)) == rows_of(staged.batch(k))
        assert same == (k < 6), k
    assert isinstance(staged.stages[0][1], Batches) and np.sum(rows) == 6 * tiny.ROWS
