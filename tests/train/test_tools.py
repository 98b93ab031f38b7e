"""Traces on demand, TensorBoard files, weights from elsewhere, averaged weights: the loop's other knobs."""

import io
import os
import signal
import threading

import numpy as np
import pytest
from rich.console import Console

from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.metrics import read_metrics
from lm.train import loop, session
from lm.train.step import Trainer
from tests.train import tiny


@pytest.fixture
def one_device(monkeypatch):
    tiny.use_one_device(monkeypatch)


def run(config, workdir) -> str:
    console = Console(file=io.StringIO(), width=1000)
    loop.train(config, workdir, console)
    return console.file.getvalue()


def test_a_trace_of_chosen_steps_and_by_signal(tmp_path, one_device, monkeypatch):
    config = tiny.config(tmp_path)
    config.log.update(profile_at=3, profile_steps=2)
    write = session.MetricsLog.write

    def signalled(self, record):
        if record["step"] == 8 and threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), signal.SIGUSR1)
        write(self, record)

    monkeypatch.setattr(session.MetricsLog, "write", signalled)
    output = run(config, tmp_path / "run")
    traces = {p.name for p in (tmp_path / "run/profile").iterdir()}
    assert "3" in traces and len(traces) == 2 and output.count("profile: ") == 2
    assert list((tmp_path / "run/profile/3").rglob("*.xplane.pb"))


def test_tensorboard_files(tmp_path, one_device):
    pytest.importorskip("tensorboardX", reason="the package tensorboardX is not installed")
    config = tiny.config(tmp_path)
    config.log.tensorboard = True
    run(config, tmp_path / "run")
    (file,) = (tmp_path / "run/tensorboard").iterdir()
    content = file.read_bytes()
    assert b"tokens_per_second" in content and b"validation_loss" in content


def test_a_run_from_the_weights_of_another(tmp_path, one_device):
    first = tiny.config(tmp_path)
    run(first, tmp_path / "first")
    end = open_model(tmp_path / "first")
    second = tiny.config(tmp_path, learning_rate=0.0)
    second.train.update(steps=2, init_from=str(tmp_path / "first"))
    run(second, tmp_path / "second")
    assert tiny.bits(open_model(tmp_path / "second").params) == tiny.bits(end.params)


@pytest.mark.slow
def test_the_average_is_evaluated_saved_and_opened(tmp_path, one_device):
    config = tiny.config(tmp_path, ema=0.5)
    run(config, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.has(12, "ema")
    opened = open_model(tmp_path / "run")
    raw = checkpoints.params(12, opened.params)
    assert tiny.bits(opened.params) != tiny.bits(raw)
    # A run that begins to keep one starts it from its parameters.
    plain = tiny.config(tmp_path)
    plain.train.steps = 6
    run(plain, tmp_path / "plain")
    later = tiny.config(tmp_path, ema=0.5)
    assert "resumed at step 6" in run(later, tmp_path / "plain")


def test_everything_at_once_compiles_once(tmp_path, one_device, monkeypatch):
    programs = []
    jitted = Trainer.jitted
    monkeypatch.setattr(Trainer, "jitted", lambda t, s: programs.append(jitted(t, s)) or programs[-1])
    config = tiny.config(tmp_path, ema=0.9, embed_gradient=0.5)
    second = tmp_path / "other.txt"
    second.write_text((tmp_path / "corpus.txt").read_text().upper())
    config.data.update(mixture=((config.data.source, 0.6), (str(second), 0.4)), packing="best-fit")
    config.train.update(accumulate=4, batch_warmup=((0, 2), (4, 4), (8, 8)), noise_scale=True, dtype="float16")
    config.train.recovery.update(action="skip", spike=9.0)
    output = run(config, tmp_path / "run")
    assert programs[-1]._cache_size() == 1
    assert "of 2 sources" in output and "other.txt" in output
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if "loss" in r]
    assert np.isfinite([r["noise_scale"] for r in records]).all() and 0 <= max(r["waiting"] for r in records) <= 1
    tokens = {r["step"]: r["tokens"] for r in records}
    peaks = [max(tokens.get(step, 0) for step in range(first, first + 4)) for first in (1, 5, 9)]
    assert peaks == sorted(set(peaks))
