"""Resume, proved with a mixture and best-fit packing on: killed anywhere, on other meshes, in several processes."""

import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm.core.param import flatten
from lm.runs import manifest
from lm.runs.checkpoint import Checkpoints, open_model
from lm.runs.goodput import read_ledger
from lm.runs.metrics import read_metrics
from lm.train.heartbeat import LOST
from tests.train import tiny

STEPS = 48
EXPERIMENT = """
from pathlib import Path
from lm.train.optim.schedule import ConstantRate
from tests.train import tiny

def get_config():
    here = Path(__file__).parent
    config = tiny.config(here, schedule=ConstantRate(warmup=4), ema=0.9)
    other = here / "other.jsonl"
    if not other.exists():
        words = "abcdefghij"
        other.write_text("".join('{"text": "%s"}\\n' % (words[: 1 + n % 10] * 2) for n in range(400)))
    config.data.update(mixture=((config.data.source, 0.7), (str(other), 0.3)), packing="best-fit")
    config.train.steps = STEPS
    config.log.update(checkpoint_every=4, eval_every=0)
    return config
""".replace("STEPS", str(STEPS))

# The command, with a note of every row of every batch that it made.
TRACED = """
import runpy, sys, zlib
from lm.data.batches import Batches

log = open(sys.argv.pop(1), "a")
plain = Batches.batch

def batch(self, k, rows=None):
    made = plain(self, k, rows)
    chosen = range(self.batch_size) if rows is None else rows
    for row, tokens in zip(chosen, made["tokens"], strict=True):
        log.write(f"{k} {row} {zlib.crc32(tokens.tobytes())}\\n")
    log.flush()
    return made

Batches.batch = batch
runpy.run_module("lm.train", run_name="__main__", alter_sys=True)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The experiment and its data: what a run's tokens are depends on when these were written."""
    folder = tmp_path_factory.mktemp("proofs")
    (folder / "experiment.py").write_text(EXPERIMENT)
    (folder / "traced.py").write_text(TRACED)
    finish(start(folder, "calm"))
    return folder


def start(folder: Path, workdir: str, devices: int = 1, log: str = "", *flags: str) -> subprocess.Popen:
    rows = folder / f"{workdir}{log}.rows"
    given = (f"--config={folder}/experiment.py", f"--workdir={folder / workdir}", *flags)
    env = tiny.one_device()
    env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, str(folder / "traced.py"), str(rows), *given]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, output = process.communicate(timeout=300)
        assert process.returncode == 0, output


def rows(folder: Path, workdir: str) -> dict[tuple[int, int], int]:
    """{(step, row): checksum of its tokens}, of all processes; one that was made twice was the same twice."""
    found: dict[tuple[int, int], int] = {}
    for log in folder.glob(f"{workdir}*.rows"):
        for line in log.read_text().splitlines():
            k, row, crc = map(int, line.split())
            assert found.setdefault((k, row), crc) == crc
    return {at: crc for at, crc in found.items() if at[0] < STEPS}  # what was made ahead and never used


def losses(folder: Path, workdir: str) -> list[float]:
    found = {r["step"]: r["loss"] for r in read_metrics(folder / workdir / "metrics.jsonl") if "loss" in r}
    assert list(found) == list(range(1, STEPS + 1))
    return list(found.values())


def half_written(checkpoints: Path) -> bool:
    """Whether a checkpoint is being written: by its array store, or its manifest is to come."""
    steps = list(checkpoints.glob("*")) if checkpoints.is_dir() else []
    return any(not p.name.isdecimal() or not manifest.is_sealed(p) for p in steps)


@pytest.mark.parametrize("seed", range(4))
def test_killed_anywhere_it_ends_with_the_same_bits(folder, seed):
    """Killed twice; with odd seeds, the second time while a checkpoint is being written."""
    rng, name = random.Random(seed), f"rough{seed}"
    kills = sorted(rng.sample(range(2, STEPS - 8), 2))
    for i, at in enumerate(kills):
        process = start(folder, name)
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            records = read_metrics(folder / name / "metrics.jsonl")
            if (
                records
                and records[-1]["step"] >= at
                and (not (seed % 2 and i) or half_written(folder / name / "checkpoints"))
            ):
                break
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was to be killed before its end"
    finish(start(folder, name))
    ends = [Checkpoints(folder / w, read_only=True) for w in ("calm", name)]
    assert [end.latest for end in ends] == [STEPS, STEPS]
    for average in (False, True):
        shapes = open_model(folder / "calm").params
        calm, rough = (tiny.bits(end.params(STEPS, shapes, average)) for end in ends)
        assert calm == rough
    assert losses(folder, name) == losses(folder, "calm")
    assert rows(folder, name) == rows(folder, "calm")


def agree(folder: Path, name: str) -> None:
    """The identical token stream; losses and parameters equal to rounding."""
    assert rows(folder, name) == rows(folder, "calm")
    np.testing.assert_allclose(losses(folder, name), losses(folder, "calm"), rtol=2e-5)
    ours, theirs = (dict(flatten(open_model(folder / w).params)) for w in (name, "calm"))
    for path, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[path], atol=2e-4, err_msg=path)


def test_eight_devices_then_four_then_one(folder):
    """The four are two stages of a pipeline."""
    knobs = ("mesh.data", "mesh.fsdp", "mesh.tensor", "parallel.pipeline", "train.steps")
    for devices, values in ((8, (2, 2, 2, 1, 16)), (4, (1, 1, 2, 2, 32)), (1, (1, 1, 1, 1, STEPS))):
        flags = (f"--config.{knob}={value}" for knob, value in zip(knobs, values, strict=True))
        finish(start(folder, "moved", devices, "", *flags))
    agree(folder, "moved")


def test_one_of_two_processes_is_lost_then_one_goes_on_then_two(folder):
    """Two processes of four devices each, connected by `jax.distributed`, one of which is killed: process 1 first, then
    the coordinator. Then one device goes on, and at last two processes again. With a checkpoint every twelve steps,
    they go on from local copies between them, the single process from the pieces of both."""
    copies = ("--config.log.local_checkpoint_every=1", f"--config.log.local_dir={folder / 'disk'}")

    def pair(last: int) -> list[subprocess.Popen]:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        return [
            start(
                folder, "pair", 4, f"-{i}", f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={i}",
                f"--config.train.steps={last}", "--config.mesh.fsdp=2", "--config.mesh.tensor=2",
                "--config.log.checkpoint_every=12", *copies,
            )
            for i in range(2)
        ]  # fmt: skip

    def lose(number: int, at: int) -> None:
        """Kill one of two once this step is told; the other notices."""
        both = pair(STEPS)
        deadline = time.monotonic() + 250
        while not any(r["step"] >= at for r in read_metrics(folder / "pair" / "metrics.jsonl")):
            ended = [p.communicate()[1] for p in both if p.poll() is not None]
            assert not ended and time.monotonic() < deadline, ended
            time.sleep(0.01)
        both[number].kill()
        killed = time.monotonic()
        _, said = both[1 - number].communicate(timeout=60)
        assert both[1 - number].returncode == LOST and time.monotonic() - killed < 30
        assert said.splitlines()[-1].startswith(f"error: process {number} of 2 is lost"), said
        assert "Traceback" not in said
        both[number].communicate()
        assert Checkpoints(folder / "pair", read_only=True).latest == 12

    lose(1, 17)
    parts = folder / "pair" / "checkpoints" / "12" / "params"
    assert {p.name for p in parts.glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}
    lose(0, 22)
    finish(start(folder, "pair", 1, "-alone", "--config.train.steps=36", *copies))
    finish(*pair(STEPS))
    agree(folder, "pair")
    each = [
        {int(row) for _, row, _ in re.findall(r"(\d+) (\d+) (\d+)", (folder / f"pair-{i}.rows").read_text())}
        for i in range(2)
    ]
    assert each[0] | each[1] == set(range(tiny.ROWS)) and each[0] != each[1], "each made only rows of its own"
    starts = [line["step"] for line in read_ledger(folder / "pair" / "goodput.jsonl") if line.get("event") == "start"]
    assert starts[0] == 0 and 12 < starts[1] <= starts[2] < 24 and starts[3:] == [36]
