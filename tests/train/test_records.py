"""What a run leaves behind: records that no later start overwrites, and saves that nothing else costs."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.component import component, to_dict
from lm.core.errors import UserError
from lm.core.formats import KEY
from lm.evaluate.evaluator import Evaluator
from lm.objectives.causal import NextToken
from lm.objectives.examples.next_token import NextTokens
from lm.runs.checkpoint import Checkpoints
from lm.runs.metrics import plot_losses, read_metrics
from lm.train import loop, session, validation
from lm.train.config_file import read_config
from tests.train import tiny


@component
class Silent(NextToken):
    """Predicts nothing."""

    def examples(self, tokenizer: Any = None) -> Callable:
        def build(row: dict, rng: np.random.Generator) -> dict:
            made = NextTokens()(row, rng)
            return made | {"weights": 0 * made["weights"]}

        return build


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    tiny.use_one_device(monkeypatch)


def run(config: ConfigDict, workdir: Any) -> str:
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    loop.train(config, workdir, console)
    return console.file.getvalue()


def short(folder: Any, steps: int = 2, **optimizer: Any) -> ConfigDict:
    c = tiny.config(folder, **optimizer)
    c.train.steps = steps
    return c


def saved(workdir: Any) -> list[int]:
    return Checkpoints(workdir, read_only=True).steps


def test_a_finished_run_keeps_its_record(tmp_path):
    run(short(tmp_path), tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.json*")}
    output = run(short(tmp_path, learning_rate=0.5), tmp_path / "run")
    assert "nothing to do" in output and "optimizer.learning_rate 0.001 -> 0.5: without effect" in output
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.json*")} == before
    assert json.loads(before["config.json"])["optimizer"]["learning_rate"] == 0.001


def losses(workdir: Path) -> list[float]:
    return [r["loss"] for r in read_metrics(workdir / "metrics.jsonl") if "loss" in r]


@pytest.mark.slow
def test_a_run_is_repeated_from_its_folder(tmp_path):
    c = short(tmp_path, 4, decay_rules=((r"norm", 0.0), (r".*", 1.0)))
    other = tmp_path / "other.txt"
    other.write_text((tmp_path / "corpus.txt").read_text().upper())
    c.data.mixture = ((c.data.source, 0.7), (str(other), 0.3, "text"))
    c.train.update(accumulate=2, batch_warmup=((0, 4), (2, 8)))
    run(c, tmp_path / "run")
    run(read_config(str(tmp_path / "run")), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "run") and len(losses(tmp_path / "run")) == 4
    first, second = (Checkpoints(tmp_path / w, read_only=True).meta(4)["config"] for w in ("run", "again"))
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert first == second == {name: part for name, part in written.items() if name != KEY}


@pytest.mark.slow
def test_what_changes_between_starts_is_told_and_kept(tmp_path):
    run(short(tmp_path), tmp_path / "run")
    first = (tmp_path / "run/config.json").read_bytes()
    changed = short(tmp_path, 4, learning_rate=0.0005)
    changed.train.dtype = "bfloat16"
    output = run(changed, tmp_path / "run")
    changes = {
        "optimizer.learning_rate": [0.001, 0.0005],
        "train.dtype": ["float32", "bfloat16"],
        "train.steps": [2, 4],
    }
    for knob, (before, now) in changes.items():
        assert f"{knob} {before!r} -> {now!r}" in output.split("resumed at step 2 with ")[1].splitlines()[0]
    changed.train.steps = 6
    run(changed, tmp_path / "run")
    assert (tmp_path / "run/config.json").read_bytes() == first
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r.get("event") == "change"]
    assert [(r["step"], r["changed"]) for r in records] == [(2, changes), (4, {"train.steps": [4, 6]})]
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    metas = [checkpoints.meta(step) for step in checkpoints.steps]
    assert [len(meta["changes"]) for meta in metas] == [0, 1, 2]
    assert [meta["config"]["optimizer"]["learning_rate"] for meta in metas] == [0.001, 0.0005, 0.0005]


def test_a_start_of_which_nothing_was_saved(tmp_path):
    """Its record is put aside: what is trained now is made by the new one."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"seed": 7}')
    assert "config.1.json" in run(short(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run/config.1.json").read_text()) == {"seed": 7}
    assert json.loads((tmp_path / "run/config.json").read_text())["seed"] == 0


def test_frozen_parameters_stay_frozen(tmp_path):
    run(short(tmp_path, lr_multipliers=(("embed", 0.0), (".*", 1.0))), tmp_path / "run")
    with pytest.raises(UserError, match=r"lr_multipliers: \S*embed/\S+ was frozen so far and would be trained"):
        run(short(tmp_path, 4), tmp_path / "run")


def test_a_value_that_no_record_holds(tmp_path):
    c = short(tmp_path)
    with c.unlocked():
        c.model.extra = {1, 2}
    with pytest.raises(UserError, match=r"config\.model\.extra is a set, which config\.json .* cannot hold"):
        run(c, tmp_path / "run")


def test_a_folder_is_of_one_run_at_a_time(tmp_path):
    (tmp_path / "run").mkdir()
    with loop.lock.alone(tmp_path / "run"), pytest.raises(UserError, match=r"another process is training in \S+/run"):
        run(short(tmp_path), tmp_path / "run")
    run(short(tmp_path), tmp_path / "run")  # the file that is left of it keeps nobody out


def silent(c: ConfigDict) -> ConfigDict:
    with c.unlocked():
        c.objective = ConfigDict(to_dict(Silent()))
    return c


def test_an_objective_that_predicts_nothing(tmp_path):
    with pytest.raises(UserError, match=r"objective Silent predicts no token in the next 256 rows \(from step 1 on\)"):
        run(silent(short(tmp_path, 30)), tmp_path / "run")


def test_one_empty_batch_among_good_ones(tmp_path, monkeypatch):
    batch = session.DevicePrefetcher.__next__
    seen = []

    def empty(self):
        made = batch(self)
        seen.append(made)
        if len(seen) == 3:
            made = made | {"weights": 0 * made["weights"], "bytes": 0 * made["bytes"]}
        return made

    monkeypatch.setattr(session.DevicePrefetcher, "__next__", empty)
    output = run(short(tmp_path, 5), tmp_path / "run")
    assert "step 3: NextToken predicts no token" in output
    records = {r["step"]: r for r in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_loss" not in r}
    assert records[3]["tokens"] == 0 and not {"loss", "bits_per_byte"} & records[3].keys()
    assert all(np.isfinite(records[step]["loss"]) for step in (1, 2, 4, 5))
    assert (tmp_path / "run/loss.png").stat().st_size > 1000 and saved(tmp_path / "run") == [5]


@pytest.mark.parametrize(
    "error", [UserError("no token to predict"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")]
)
def test_an_evaluation_that_fails_costs_its_figures_only(tmp_path, monkeypatch, error):
    at = []

    def fail(self, *_):
        at.append(saved(tmp_path / "run"))
        raise error

    monkeypatch.setattr(Evaluator, "__call__", fail)
    c = short(tmp_path, 4)
    c.log.update(eval_every=2, checkpoint_every=2)
    output = run(c, tmp_path / "run")
    assert len(re.findall(r"step \d: no validation figures: ", output)) == 2 and str(error) in output
    assert saved(tmp_path / "run") == [2, 4]


def test_evaluations_come_when_they_are_due(tmp_path):
    """At steps too at which no record is."""
    c = short(tmp_path, 5)
    c.log.update(every=3, eval_every=2)
    run(c, tmp_path / "run")
    assert [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_loss" in r] == [2, 4, 5]


def test_what_fails_otherwise_comes_after_the_save(tmp_path, monkeypatch):
    def fail(self, *_):
        raise NotImplementedError("of an objective of one's own")

    monkeypatch.setattr(Evaluator, "__call__", fail)
    with pytest.raises(NotImplementedError):
        run(short(tmp_path), tmp_path / "run")
    assert saved(tmp_path / "run") == [2]
    monkeypatch.undo()
    tiny.use_one_device(monkeypatch)
    run(short(tmp_path), tmp_path / "run")  # the evaluation that is owed
    assert [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_loss" in r] == [2]
    assert (tmp_path / "run/loss.png").exists()


def test_a_plot_that_fails_is_told(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("bits_per_byte")

    monkeypatch.setattr(validation, "plot_losses", fail)
    assert "loss.png could not be drawn: KeyError" in run(short(tmp_path), tmp_path / "run")
    assert saved(tmp_path / "run") == [2]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 1, "tokens": 0.0}],
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "bits_per_byte": 1.4}],
        [{"step": 1, "loss": 2.0, "bits_per_byte": 2.9}, {"step": 2, "validation_loss": 2.0}],
        [{"event": "change", "step": 3, "changed": {}}, {"event": "skip", "step": 4}, {"step": 1, "loss": 0.0}],
    ],
)
def test_any_records_can_be_drawn(tmp_path, records):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", "title")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_lines_of_a_log_file_are_whole(tmp_path, monkeypatch):
    c = short(tmp_path, 30)
    c.log.every = 1000
    monkeypatch.setattr("lm.train.progress.SECONDS", 0.0)
    output = run(c, tmp_path / "run").splitlines()
    (first, *_, last) = steps = [line for line in output if re.match(r"step \d+ of 30: loss ", line)]
    assert first.startswith("step 1 of 30") and last.startswith("step 30 of 30") and len(steps) == 30
    assert all("tokens/s, MFU" in line for line in steps) and "left" in steps[5]
    assert output[1] == "compiling the train step ..." and re.match(
        r"compiled in \d+\.\d s; it needs .*iB a device", output[2]
    )
    assert output[0].endswith("matmul)") and len(output[0]) > 120
