"""Sweeps of tiny models on a tiny corpus, end to end."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lm.core.errors import UserError
from lm.train.loop import train
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from scaling import sweep as cli
from scaling.laws import EPOCH
from scaling.plan import default, plan
from scaling.records import RECORD, append_run, read_runs
from scaling.runner import run_trunk, sweep

ROOT = Path(__file__).resolve().parents[2]
LENGTH, BUDGETS = 16, (5e7, 1e8)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    text = "\n".join(f"{a} times {b} is {a * b}" for a in range(60) for b in range(20))
    (folder / "corpus.txt").write_text(text)
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", head_dim=8, vocab=384, context=LENGTH)
    config.data.update({"source": str(folder / "corpus.txt"), "cache": str(folder), "length": LENGTH, "batch_size": 8})
    config.sweep.update({"budgets": BUDGETS, "shapes": ((8, 1), (16, 1), (24, 1)), "warmup": 0.02})
    return config.lock()


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    """The folder of a finished sweep, and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    out = tmp_path_factory.mktemp("sweep") / "new" / "folder"
    sweep(config, out, console)
    return out, console.file.getvalue()


def records_of(out):
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def test_a_sweep_records_every_cell(config, swept):
    out, printed = swept
    records = records_of(out)
    cells = {(r["budget"], r["d_model"]) for r in records}
    assert len(records) == 6 and cells == {(c, d) for c in BUDGETS for d in (8, 16, 24)}
    for r in records:
        assert RECORD.keys() <= r.keys()
        assert abs(r["flops"] - r["budget"]) <= r["flops"] / r["steps"] / 2
        assert 0 < r["loss"] < np.log(384) and r["loss_unit"] == "nats/byte" and "matmuls" in r["flops_convention"]
    assert printed.count("nats/byte") == 6 and "6 of them to do" in printed
    assert len(read_runs(out / "runs.jsonl")["loss"]) == 6


def test_only_missing_runs_are_done_again(config, swept, tmp_path):
    out, _ = swept
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    lines = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:-1]))
    console = Console(file=io.StringIO(), width=200)
    sweep(config, tmp_path, console)
    assert "1 of them to do" in console.file.getvalue()
    assert (tmp_path / "runs.jsonl").read_text().startswith("".join(lines[:-1]))
    again, first = records_of(tmp_path)[-1], json.loads(lines[-1])
    assert again["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert {k: v for k, v in again.items() if k not in ("loss", "seconds")} == {
        k: v for k, v in first.items() if k not in ("loss", "seconds")
    }


def test_a_cell_is_the_training_run_that_its_record_tells_of(config, swept, tmp_path):
    """The run that branched off a trunk ends where one of its own, by `lm.train`, does."""
    trunk = plan(config, (LENGTH, 0), 10_000)[0]
    cell, record = trunk.cells[0], records_of(swept[0])[0]
    run = trunk.config.copy_and_resolve_references()
    run.train.steps = cell.steps
    run.log.update({"checkpoint_every": 0, "eval_every": 0})
    assert (record["d_model"], record["steps"]) == (run.model.d_model, cell.steps)
    result = train(run, tmp_path, Console(file=io.StringIO()))
    assert record["loss"] == pytest.approx(result["bits_per_byte"] * np.log(2), rel=1e-4)


def test_a_diverged_run_has_no_loss_and_the_others_go_on(config, tmp_path):
    wild = config.copy_and_resolve_references()
    wild.sweep.lr, wild.optimizer.clip = 1e30, 0.0
    trunk = plan(wild, (LENGTH, 0), 10_000)[0]
    parts = assemble(wild)
    runs = list(run_trunk(trunk, list(trunk.cells), parts.data, parts.objective, 256))
    assert [r["loss"] for r in runs] == [None, None] and [r["budget"] for r in runs] == list(BUDGETS)
    for record in runs:
        append_run(tmp_path / "runs.jsonl", record)


def test_another_sweep_does_not_mix_in(config, swept):
    other = config.copy_and_resolve_references()
    other.sweep.lr = 0.5
    with pytest.raises(UserError, match=r"config\.sweep\.lr=0\.128, not 0\.5"):
        sweep(other, swept[0])


def test_a_folder_that_cannot_be_made(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        sweep(config, tmp_path / "file" / "out")


def test_a_damaged_record_is_named(config, swept, tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"params": 1\n')
    with pytest.raises(UserError, match=r"runs\.jsonl line 1 is not JSON"):
        sweep(config, tmp_path)


def law_runs(path, sizes, diverged=0):
    for C in (1e19, 1e20):
        for N in EPOCH.optimal(C)[0] * np.exp(np.linspace(-1, 1, sizes)):
            D = C / (6 * N)
            run = {"params": N, "tokens": D, "flops": C, "flops_convention": "6ND", "budget": C}
            append_run(path, run | {"loss": float(EPOCH.loss(N, D)), "loss_unit": "nats/token"})
        for _ in range(diverged):
            append_run(path, run | {"loss": None, "loss_unit": "nats/token"})


@pytest.mark.parametrize(("sizes", "note"), [(3, "no intervals"), (5, "resamples")])
def test_the_report_and_plot(tmp_path, capsys, sizes, note):
    law_runs(tmp_path / "runs.jsonl", sizes, diverged=1)
    cli.fit(tmp_path / "runs.jsonl")
    printed = capsys.readouterr().out
    assert f"approach 2, {2 * sizes} runs" in printed and "N = " in printed and note in printed
    assert (tmp_path / "isoflop.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "scaling.sweep", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    helped = run("--help")
    assert helped.returncode == 0 and "--config.sweep.budgets" in helped.stdout
    wrong = run(f"--out={tmp_path}", "--config.sweep.budgets=10.0,1e9")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: "), wrong.stderr
    assert wrong.stderr.count("\n") == 1 and "less than one step" in wrong.stderr
