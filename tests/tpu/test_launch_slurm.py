"""A SLURM of one machine, begun for this test: the batch script really runs, fails, is stopped, and ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm import NEEDED, call, cluster, wait

pytestmark = [pytest.mark.slow, NEEDED]
ROOT = Path(__file__).parents[2]
STEPS = 120
CONFIG = """\
from lm.train.config import default
from lm.zoo.registry import knobs

def get_config():
    c = default()
    with c.unlocked():
        c.model = knobs("gpt2", layers=1, d_model=32, heads=2, vocab=384, context=32)
        c.data.update(source="{folder}/text.txt", cache="{folder}/cache", length=32, batch_size=8)
        c.train.update(steps={steps}, unroll=True)
        c.log.update(checkpoint_every=10, eval_every=0, every=1)
    return c
"""
LAUNCH = """\
from ml_collections import ConfigDict

def get_config():
    job = dict(name="tiny", config="{folder}/tiny.py", workdir="{folder}/run", python="{python}", knobs=("--wait=120",),
               env=("JAX_PLATFORMS=cpu", "PYTHONPATH={root}", "XLA_FLAGS="))
    slurm = dict(type="Slurm", folder="{folder}", tasks=2, grace=60, time="30:00")
    return ConfigDict(dict(job=job, places=dict(slurm=slurm)))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    with cluster(tmp_path, monkeypatch):
        yield tmp_path


def test_a_job_is_queued_again_until_it_is_done(slurm):
    """Two tasks train as one run. One of them is killed, then the job is told that its time is over."""
    (slurm / "text.txt").write_text((ROOT / "README.md").read_text() * 4)
    (slurm / "tiny.py").write_text(CONFIG.format(folder=slurm, steps=STEPS))
    (slurm / "launch.py").write_text(LAUNCH.format(folder=slurm, python=sys.executable, root=ROOT))
    launch = [sys.executable, "-m", "tpu.launch", f"--launch={slurm}/launch.py", "--on=slurm", f"--out={slurm}/out"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(launch, capture_output=True, text=True, env=env, cwd=slurm)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]

    def state() -> dict[str, str]:
        return dict(pair.partition("=")[::2] for pair in call("scontrol", "show", "job", job).split())

    def checkpoint(least: int) -> bool:
        found = [int(p.name) for p in (slurm / "run" / "checkpoints").glob("[0-9]*") if p.name.isdecimal()]
        return max(found, default=-1) >= least

    def at_once() -> None:
        """SLURM waits two minutes before it starts a requeued job."""
        wait(lambda: state()["JobState"] == "PENDING", 60)
        call("scontrol", "update", f"JobId={job}", "StartTime=now")

    def log() -> str:
        return (slurm / "tiny.log").read_text()

    try:
        wait(lambda: checkpoint(10))
        (task, *_) = [p for p in Path("/proc").glob("[0-9]*") if is_task(p, slurm)]
        os.kill(int(task.name), signal.SIGKILL)
        at_once()
        wait(lambda: checkpoint(40))
        call("scancel", "--batch", "--signal=TERM", job)
        at_once()
        wait(lambda: state()["JobState"] not in ("RUNNING", "PENDING", "CONFIGURING", "COMPLETING"))
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    told = log()
    assert state()["JobState"] == "COMPLETED" and state()["Restarts"] == "2", told[-3000:]
    assert "SIGTERM: saved step" in told and told.count("tiny ended with status") == 2
    lines = [json.loads(line) for line in (slurm / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in lines if "loss" in record} == set(range(1, STEPS + 1))


def is_task(process: Path, folder: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    return words[0] == sys.executable.encode() and f"--workdir={folder}/run".encode() in words
