"""Sweeps of tiny models on a tiny corpus, end to end."""

import dataclasses
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
from scaling.cells import Cell, Plan, default, grid
from scaling.folder import records
from scaling.laws import EPOCH
from scaling.records import RECORD, append_run, read_runs
from scaling.runner import sweep
from scaling.swept import SWEPT, record_of
from scaling.training import together, train_group
from scaling.trunks import trunks_of
from scaling.tuned import tuned
from scaling.unit import run_unit

ROOT = Path(__file__).resolve().parents[2]
LENGTH, BUDGETS = 16, (5e7, 1e8)


class Here:
    """A backend that runs each unit in this process, at once; those of `broken` end without a word."""

    def __init__(self, out, broken=()):
        self.out, self.broken, self.started = out, broken, []

    def start(self, units):
        self.started += units
        for unit in units:
            if unit not in self.broken:
                run_unit(self.out, unit)

    def running(self):
        return set()

    def stop(self):
        pass


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


def plan_of(config):
    return Plan(config, grid(config, (LENGTH, 0)))


def planned(config):
    return trunks_of(config, grid(config, (LENGTH, 0)), (LENGTH, 0), 10_000)


def swept_to(config, out, backend=Here, **how):
    """What a sweep printed."""
    console = Console(file=io.StringIO(), width=200)
    sweep(plan_of(config), out, backend, console=console, **how)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    """The folder of a finished sweep, and what it printed."""
    out = tmp_path_factory.mktemp("sweep") / "new" / "folder"
    return out, swept_to(config, out)


def records_of(out):
    return records(out / "runs.jsonl")


def lasting(record):
    """What a run's record says whenever it is made."""
    return {k: v for k, v in record.items() if k not in ("seconds", "time")}


def test_a_sweep_records_every_cell(config, swept):
    out, printed = swept
    records = records_of(out)
    cells = {(r["budget"], r["d_model"]) for r in records}
    assert len(records) == 6 and cells == {(c, d) for c in BUDGETS for d in (8, 16, 24)}
    for r in records:
        assert list(r) == ["format", *RECORD, *(k for k in r if k in SWEPT)] and SWEPT.keys() <= r.keys()
        assert abs(r["flops"] - r["budget"]) <= r["flops"] / r["steps"] / 2
        assert 0 < r["loss"] < np.log(384) and r["loss_unit"] == "nats/byte" and "matmuls" in r["flops_convention"]
        assert 0 < r["loss_se"] < 0.2 * r["loss"] and r["unique_tokens"] <= r["tokens"] and not r["diverged"]
        assert 0 < r["accuracy"] < 1
        assert r["params"] == r["total_params"] and json.loads(r["model"])["d_model"] == r["d_model"]
    assert printed.count("nats/byte") == 6 and "6 of them to do" in printed
    assert len(read_runs(out / "runs.jsonl")["loss"]) == 6


def test_only_missing_runs_are_done_again(config, swept, tmp_path):
    """Also of a run whose record a kill cut short."""
    out, _ = swept
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    lines = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:-1]) + lines[-1][:50])
    assert "1 of them to do" in swept_to(config, tmp_path)
    assert (tmp_path / "runs.jsonl").read_text().startswith("".join(lines[:-1]))
    again, first = records_of(tmp_path)[-1], json.loads(lines[-1])
    assert again["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert lasting(again | {"loss": 0, "loss_se": 0}) == lasting(first | {"loss": 0, "loss_se": 0})


def test_what_fails_is_tried_again_and_recorded(config, swept, tmp_path):
    out, _ = swept
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    lines = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:-1]))
    made = []

    def backend(out):
        made.append(Here(out, broken=range(3)))
        return made[0]

    printed = swept_to(config, tmp_path, backend, retries=2)
    assert len(made[0].started) == 3 and len(set(made[0].started)) == 1 and printed.count("tried again") == 2
    last = records_of(tmp_path)[-1]
    assert last["loss"] is None and not last["diverged"] and "without a word" in last["failure"]
    assert len(read_runs(tmp_path / "runs.jsonl", where=["loss"])["loss"]) == 5
    assert "1 of them to do" in swept_to(config, tmp_path)  # a later call tries it anew
    assert lasting(records_of(tmp_path)[-1])["failure"] is None


def test_a_cell_is_the_training_run_that_its_record_tells_of(config, swept, tmp_path):
    """The run that branched off a trunk ends where one of its own, by `lm.train`, does."""
    trunk = planned(config)[0]
    point = trunk.points[0]
    (record,) = (r for r in records_of(swept[0]) if r["cell"] == point.cell.id)
    run = trunk.config.copy_and_resolve_references()
    run.train.steps = point.steps
    run.log.update({"checkpoint_every": 0, "eval_every": 0})
    assert (record["d_model"], record["steps"]) == (run.model.d_model, point.steps)
    result = train(run, tmp_path, Console(file=io.StringIO()))
    assert record["loss"] == pytest.approx(result["bits_per_byte"] * np.log(2), rel=1e-4)


def test_runs_that_train_together_end_where_each_alone_does(config):
    cells = [Cell(8, 1, 8 * LENGTH * n, None, rate, 8, 0, b2, decay, seed)
             for n in (6, 10) for rate, b2, decay, seed in ((0.01, 0.99, 0.1, 0), (0.03, 0.9, 0.0, 1))]  # fmt: skip
    trunks = trunks_of(config, cells, (LENGTH, 0), 10_000)
    assert together(trunks[0], "cpu") and together(trunks[0], "gpu")
    parts = assemble(trunks[0].config)

    def losses(group):
        wanted = {trunk: trunk.points for trunk in group}
        return {o.point.cell.id: o.judged.loss for o in train_group(group, wanted, parts.data, parts.objective, 256)}

    alone = losses(trunks[:1]) | losses(trunks[1:])
    assert len(set(alone.values())) == 4
    assert losses(trunks) == pytest.approx(alone, rel=1e-4)


def test_wide_models_and_those_of_several_devices_train_alone(config):
    wide = trunks_of(config, [Cell(64, 1, 1280, None, 0.01, 8, 0, 0.99, 0.1)], (LENGTH, 0), 10_000)[0]
    assert not together(wide, "cpu") and together(wide, "tpu")
    spread = wide.config.copy_and_resolve_references()
    spread.mesh.data = 2
    assert not together(dataclasses.replace(wide, config=spread), "tpu")


def test_a_diverged_run_has_no_loss_and_the_others_go_on(config, tmp_path):
    wild = config.copy_and_resolve_references()
    wild.sweep.lr, wild.optimizer.clip = 1e30, 0.0
    trunk = planned(wild)[0]
    parts = assemble(trunk.config)
    outcomes = list(train_group([trunk], {trunk: trunk.points}, parts.data, parts.objective, 256))
    runs = [record_of(outcome, parts.data) for outcome in outcomes]
    assert [r["loss"] for r in runs] == [None, None] and [r["budget"] for r in runs] == list(BUDGETS)
    assert all(r["diverged"] and r["failure"] is None for r in runs)
    for record in runs:
        append_run(tmp_path / "runs.jsonl", record)


def test_another_sweep_does_not_mix_in(config, swept):
    other = config.copy_and_resolve_references()
    other.sweep.evaluation_tokens = 64
    with pytest.raises(UserError, match=r"config\.sweep\.evaluation_tokens=262144, not 64"):
        swept_to(other, swept[0])


def test_a_folder_that_cannot_be_made(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        swept_to(config, tmp_path / "file" / "out")


def test_a_damaged_record_is_named(config, swept, tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"params": 1\n')
    with pytest.raises(UserError, match=r"runs\.jsonl line 1 is not JSON"):
        swept_to(config, tmp_path)


def compared(path, power=-0.8, scale=0.1, at=(0.5, 1, 2)):
    """Records of a sweep that compared rates, of which scale * d ** power is best, and batches, of which 8 is."""
    for d, rows, factor in ((d, rows, factor) for d in (16, 32, 64) for rows in (4, 8) for factor in at):
        loss = 2 + 16 / d + 0.1 * np.log(factor) ** 2 + 0.01 * (rows == 4)
        run = {"params": d * 100, "tokens": 1e6, "flops": 6e8, "flops_convention": "6ND", "loss": loss, "budget": 6e8}
        sized = {"d_model": d, "seed": 0, "batch_size": rows, "learning_rate": factor * scale * d**power}
        append_run(path, run | {"loss_unit": "nats/byte"} | sized)


def test_rate_and_batch_are_taken_from_runs_that_compared_them(tmp_path):
    runs = tmp_path / "runs.jsonl"
    compared(runs, at=(0.7, 1.3, 2.5))
    knobs = dict(tuned(runs))
    assert float(knobs["sweep.lr"]) == pytest.approx(0.1, rel=0.01)
    assert float(knobs["sweep.lr_power"]) == pytest.approx(-0.8, abs=0.01)
    assert knobs["data.batch_size"] == "8"


def test_two_rates_are_too_few_to_choose_from(tmp_path):
    compared(tmp_path / "runs.jsonl", power=0.0, at=(1, 2))
    with pytest.raises(UserError, match=r"no knob takes three values.*lr_factors=0.5,1,2"):
        tuned(tmp_path / "runs.jsonl")


def law_runs(path, sizes, diverged=0):
    for C in (1e19, 1e20):
        for N in EPOCH.optimal(C)[0] * np.exp(np.linspace(-1, 1, sizes)):
            D = C / (6 * N)
            run = {"params": N, "tokens": D, "flops": C, "flops_convention": "6ND", "budget": C}
            append_run(path, run | {"loss": float(EPOCH.predict(N, D)), "loss_unit": "nats/token"})
        for _ in range(diverged):
            append_run(path, run | {"loss": None, "loss_unit": "nats/token"})


@pytest.mark.parametrize(("sizes", "note"), [(3, "no intervals"), (5, "resamples")])
def test_the_report_and_plot(tmp_path, capsys, sizes, note):
    law_runs(tmp_path / "runs.jsonl", sizes, diverged=1)
    cli.fit(tmp_path / "runs.jsonl")
    printed = capsys.readouterr().out
    assert f"approach 2, {2 * sizes} runs" in printed and "N = " in printed and note in printed
    assert (tmp_path / "isoflop.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_without_profiles_is_no_error(tmp_path, capsys):
    law_runs(tmp_path / "runs.jsonl", 2)
    cli.fit(tmp_path / "runs.jsonl")
    assert "no isoFLOP fit" in capsys.readouterr().out


def test_the_command_line(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "scaling.sweep", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    helped = run("--help")
    assert helped.returncode == 0 and "--config.sweep.budgets" in helped.stdout
    wrong = run(f"--out={tmp_path}", "--config.sweep.budgets=10.0,1e9")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: "), wrong.stderr
    assert wrong.stderr.count("\n") == 1 and "less than one step" in wrong.stderr
    wrong = run(f"--out={tmp_path}", f"--plan={tmp_path}/plan.json")
    assert wrong.returncode == 2 and "no such file; python -m scaling.plan writes one" in wrong.stderr
