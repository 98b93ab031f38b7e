"""A disk that is full loses nothing that was saved, and is told in one line."""

import resource
import subprocess
import sys

import pytest

from lm.runs.checkpoint import Checkpoints
from tests.train import tiny

EXPERIMENT = """
from pathlib import Path
from tests.train import tiny


def get_config():
    config = tiny.config(Path(__file__).parent)
    config.log.update(checkpoint_every=1, every=100)
    return config
"""


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["no checkpoint fits", "not even the metrics fit"])
def test_a_full_disk(tmp_path, harm):
    """RLIMIT_FSIZE stands for it: no file may grow beyond that."""
    (tmp_path / "experiment.py").write_text(EXPERIMENT)
    tiny.config(tmp_path)
    run = tmp_path / "run"

    def train(steps: int, limit: int | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "lm.train", f"--config={tmp_path / 'experiment.py'}", f"--workdir={run}"]
        restrict = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
        return subprocess.run(
            [*command, f"--config.train.steps={steps}"],
            env=tiny.one_device(), capture_output=True, text=True, preexec_fn=restrict,
        )  # fmt: skip

    assert train(3).returncode == 0
    if harm == "not even the metrics fit":  # which are written before a step is saved
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 1}\n' * 1000)
    done = train(8, 12_000)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 9, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    wanted = {"no checkpoint fits": f"could not be written to {run / 'checkpoints'}"}.get(
        harm, f"write to {run}: File too"
    )
    assert wanted in line and "make room, then run the same command" in line
    assert Checkpoints(run, read_only=True).latest == 3
    done = train(8)
    assert done.returncode == 0 and "resumed at step 3" in " ".join(done.stderr.split())
    assert Checkpoints(run, read_only=True).latest == 8
