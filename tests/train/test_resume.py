"""A run may be killed at any instant: what it becomes in the end is the same to the bit."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from lm.core.param import flatten
from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.metrics import read_metrics
from lm.train import loop
from lm.train.config_file import read_config
from lm.train.optim.schedule import ConstantRate
from lm.train.state import State
from lm.train.step import Trainer
from tests.train import tiny

STEPS = 60
EXPERIMENT = """
from pathlib import Path
from lm.adapt.lora import LoRA
from lm.compress.int8 import Int8
from lm.core.component import to_dict
from tests.train import tiny


def get_config():
    config = tiny.config(Path(__file__).parent, learning_rate=1e-2)
    config.transforms = (to_dict(Int8("mlp")), to_dict(LoRA(4, target="attention|mlp|token")))
    config.train.steps = %d
    config.log.update(checkpoint_every=4, eval_every=30)
    return config
"""


# The command, where Ctrl-C is heard: these tests may themselves be run in the background of a script.
HEARING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("lm.train", run_name="__main__", alter_sys=True)
"""


def start(folder: Path, workdir: str) -> subprocess.Popen:
    """The command in a process of its own, with one device."""
    experiment = folder / "experiment.py"
    experiment.write_text(EXPERIMENT % STEPS)
    command = [sys.executable, "-c", HEARING, f"--config={experiment}", f"--workdir={folder / workdir}"]
    return subprocess.Popen(command, env=tiny.one_device(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, status: int = 0) -> str:
    """What it told on standard error, on one line, once it has ended with this status."""
    _, output = process.communicate(timeout=200)
    assert process.returncode == status, output
    return " ".join(output.split())


def wait_for(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Poll metrics.jsonl until this step is told."""
    deadline = time.monotonic() + 200
    while not any(r["step"] >= step for r in read_metrics(workdir / "metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)


def records(workdir: Path) -> tuple[list[dict], list[dict]]:
    """Training records and validation records."""
    every = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [r for r in every if "loss" in r], [r for r in every if "validation_loss" in r]


def test_a_run_killed_and_stopped_ends_with_the_same_bits(tmp_path, monkeypatch):
    """`rough` is ended by SIGKILL, then by SIGTERM, then by Ctrl-C; `calm` runs undisturbed. Both train adapters over a
    model that is int8 in part; `test_resume_proofs` has runs without transforms.

    One test, because the processes take their time."""
    rough, calm = tmp_path / "rough", tmp_path / "calm"
    tiny.config(tmp_path)  # writes the corpus, whose time of writing names the token cache

    process = start(tmp_path, "rough")
    wait_for(process, rough, 14)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = Checkpoints(rough, read_only=True).latest
    assert killed_at is not None and killed_at < STEPS - 20

    process = start(tmp_path, "rough")
    wait_for(process, rough, killed_at + 10)
    process.terminate()
    output = finish(process, 143)
    saved = Checkpoints(rough, read_only=True).latest
    assert saved is not None and killed_at + 10 <= saved < STEPS
    assert f"resumed at step {killed_at}" in output and f"SIGTERM: saved step {saved}" in output

    process = start(tmp_path, "rough")
    wait_for(process, rough, saved + 6)
    process.send_signal(signal.SIGINT)
    output = finish(process, 130)
    last = Checkpoints(rough, read_only=True).latest
    assert last is not None and saved + 6 <= last < STEPS
    assert f"Ctrl-C: saved step {last}" in output and "Traceback" not in output

    assert f"resumed at step {last}" in finish(start(tmp_path, "rough"))
    assert "resumed" not in finish(start(tmp_path, "calm"))
    ends = [open_model(w) for w in (rough, calm)]
    assert [e.step for e in ends] == [STEPS, STEPS]
    assert tiny.bits(ends[0].params) == tiny.bits(ends[1].params)
    program = ends[0].program
    first = jax.jit(program.initialize)(jax.random.key(0))
    moved, stayed = (tiny.bits(part) for part in program.split(ends[0].params))
    assert stayed == tiny.bits(program.split(first)[1]) and len(program.transforms) == 2
    assert all(bits != tiny.bits(first)[path] for path, bits in moved.items())

    # Each step is output once.
    (steps, evaluations), (their_steps, their_evaluations) = records(rough), records(calm)
    assert [r["step"] for r in steps] == [r["step"] for r in their_steps] == list(range(1, STEPS + 1))
    assert [r["step"] for r in evaluations] == [30, STEPS]
    assert evaluations == their_evaluations
    for ours, theirs in zip(steps, their_steps, strict=True):
        assert ours["loss"] == theirs["loss"] and ours["learning_rate"] == theirs["learning_rate"]
        assert np.isfinite([ours["bits_per_byte"], ours["mfu"], ours["tokens_per_second"]]).all()
    assert steps[-1]["loss"] < steps[0]["loss"] and evaluations[-1]["validation_loss"] < steps[0]["loss"]

    # The same command once more changes nothing.
    before = (calm / "metrics.jsonl").read_bytes()
    tiny.use_one_device(monkeypatch)
    config = read_config(tmp_path / "experiment.py")
    console = Console(file=io.StringIO(), width=1000)
    result = loop.train(config, calm, console)
    assert f"nothing to do: {calm} is at step {STEPS} of {STEPS}" in console.file.getvalue()
    assert result["loss"] == pytest.approx(evaluations[-1]["validation_loss"], rel=1e-4)
    assert (calm / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_run_may_change_its_mesh(tmp_path, monkeypatch):
    """Eight devices in two stages, then one, against one from beginning to end, dropout and all."""
    programs = []

    def jitted(trainer: Trainer, state: State) -> Any:
        programs.append(make(trainer, state))
        return programs[-1]

    def run(workdir: str, steps: int, stages: int = 1, **mesh: int) -> None:
        config = tiny.config(tmp_path, schedule=ConstantRate(warmup=4))
        config.train.steps, config.model.dropout, config.parallel.pipeline = steps, 0.1, stages
        config.mesh.update({"data": 1} | mesh)
        loop.train(config, tmp_path / workdir, Console(file=io.StringIO()))
        assert programs[-1]._cache_size() == 1, "a restored state is laid out as one that a step gives back"

    make = Trainer.jitted
    monkeypatch.setattr(Trainer, "jitted", jitted)

    run("moved", 4, stages=2, data=2, fsdp=2)
    tiny.use_one_device(monkeypatch)
    run("moved", 8)
    run("stayed", 8)
    moved, stayed = (records(tmp_path / w)[0] for w in ("moved", "stayed"))
    assert [r["step"] for r in moved] == list(range(1, 9))
    np.testing.assert_allclose([r["loss"] for r in moved], [r["loss"] for r in stayed], rtol=2e-5)
    ours, theirs = (dict(flatten(open_model(tmp_path / w).params)) for w in ("moved", "stayed"))
    for path in ours:
        np.testing.assert_allclose(ours[path], theirs[path], atol=1e-4, err_msg=path)
