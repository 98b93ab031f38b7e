"""Sweeps by real processes, here, on a Ray cluster of two nodes, and on SLURM: whatever is killed, the same records."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from lm.core.errors import UserError
from lm.zoo.registry import knobs
from scaling.backends.ray import Ray
from scaling.backends.slurm import Slurm
from scaling.cells import Plan, default, grid, write_plan
from scaling.folder import records
from scaling.runner import sweep
from tests.slurm import NEEDED, cluster, wait
from tests.train.tiny import one_device

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 16


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The processes of a test have one device each, as they would have without tests."""
    monkeypatch.setenv("XLA_FLAGS", one_device()["XLA_FLAGS"])


@pytest.fixture
def plan(tmp_path):
    """Three trunks of two points."""
    text = "\n".join(f"{a} times {b} is {a * b}" for a in range(60) for b in range(20))
    (tmp_path / "corpus.txt").write_text(text)
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", head_dim=8, vocab=384, context=LENGTH)
    data = {"source": str(tmp_path / "corpus.txt"), "cache": str(tmp_path / "cache")}
    config.data.update({**data, "length": LENGTH, "batch_size": 4})
    config.sweep.update({"budgets": (5e8, 2e9), "shapes": ((24, 1), (32, 1), (40, 1)), "warmup": 0.02})
    config.sweep.evaluation_tokens = 256
    return Plan(config, grid(config, (LENGTH, 0)))


def losses(out):
    found = {r["cell"]: r["loss"] for r in records(out / "runs.jsonl")}
    assert len(found) == len(records(out / "runs.jsonl")), "a cell was recorded twice"
    return found


def swept(plan, out, backend):
    console = Console(file=io.StringIO(), width=200)
    sweep(plan, out, backend, retries=2, console=console)
    return console.file.getvalue()


def workers(out):
    """Process ids of units of a sweep."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"scaling.worker" in words and f"--out={out}".encode() in words:
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_records(plan, tmp_path):
    """The sweep is killed in the midst of its work, and a worker of the next one too."""
    write_plan(tmp_path / "plan.json", plan)

    def begun(out):
        words = [sys.executable, "-m", "scaling.sweep", f"--plan={tmp_path}/plan.json", f"--out={out}", "--workers=2"]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = begun(whole)
    told, _ = first.communicate(timeout=300)
    assert first.returncode == 0, told
    first = begun(killed)
    wait(lambda: (killed / "runs.jsonl").exists(), 120)
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait(lambda: not workers(killed), 30)
    assert 0 < len(losses(killed)) < 6
    second = begun(killed)
    wait(lambda: workers(killed) or second.poll() is not None, 120)
    for process in workers(killed)[:1]:
        os.kill(process, signal.SIGKILL)
    told, _ = second.communicate(timeout=300)
    assert second.returncode == 0, told
    assert "tried again" in told
    assert losses(killed) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_a_ray_cluster_loses_a_node(plan, tmp_path):
    """Of two nodes one goes; what ran there runs again on the other."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()

        class Losing(Ray):
            """Loses a node once two units run."""

            def running(self):
                if len(nodes.worker_nodes) and len(workers(tmp_path / "out")) == 2:
                    time.sleep(1)
                    nodes.remove_node(lost)
                return super().running()

        told = swept(plan, tmp_path / "out", lambda out: Losing(out, nodes.address))
    finally:
        nodes.shutdown()
    assert "tried again" in told and len(losses(tmp_path / "out")) == 6
    assert None not in losses(tmp_path / "out").values()


@pytest.mark.slow
@NEEDED
def test_slurm_runs_the_units_of_an_array(plan, tmp_path, monkeypatch):
    (tmp_path / "slurm").mkdir()
    with cluster(tmp_path / "slurm", monkeypatch):
        told = swept(plan, tmp_path / "out", lambda out: Slurm(out, options=["--time=10:00"]))
        listed = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout
    assert len(losses(tmp_path / "out")) == 6 and not listed.strip(), told
    assert "#SBATCH --time=10:00" in (tmp_path / "out" / "array.sbatch").read_text()


def test_no_slurm_here_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"there is no squeue here; call it on a login node"):
        Slurm(tmp_path)
    with pytest.raises(UserError, match="write an option of sbatch whole"):
        Slurm(tmp_path, options=["time=10:00"])


def test_an_array_names_its_units_and_its_options(tmp_path, monkeypatch):
    """As squeue says that nothing is queued."""
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = Slurm(tmp_path, cpus=2, options=["--partition=long"]).script([0, 3, 5])
    for line in ("#SBATCH --array=0,3,5", "#SBATCH --cpus-per-task=2", "#SBATCH --partition=long"):
        assert line in script.splitlines()
    assert f"-m scaling.worker --out={tmp_path} " in script and '--unit="$SLURM_ARRAY_TASK_ID"' in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_unit_that_is_not_there(plan, tmp_path):
    write_plan(tmp_path / "plan.json", plan)
    (tmp_path / "units.json").write_text(json.dumps([["a"]]))
    words = [sys.executable, "-m", "scaling.worker", f"--out={tmp_path}", "--unit=3"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: --unit=3: ") and done.stderr.count("\n") == 1
