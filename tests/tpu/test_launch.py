"""Launchers: what they write and run, by golden files; the scripts themselves, run with commands that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from lm.core.errors import UserError
from tests.tpu.render_launch import EXAMPLE, GOLDEN, PLACES, rendered
from tpu.launch.hosts import Hosts
from tpu.launch.job import Job
from tpu.launch.keep import keep
from tpu.launch.read import read
from tpu.launch.slurm import Slurm
from tpu.launch.tpu_vm import QueuedResource

ROOT = Path(__file__).parents[2]
JOB = Job("tiny", "experiments/quickstart.py", "/runs/tiny")
SCHEMA = json.loads((Path(__file__).parent / "jobset.schema.json").read_text())


@pytest.mark.parametrize("place", PLACES)
def test_a_place_renders_as_it_did(place):
    assert rendered(place) == (GOLDEN / f"{place}.txt").read_text(encoding="utf-8"), (
        "python -m tests.tpu.render_launch writes it anew"
    )


@pytest.mark.parametrize("place", [name for name in PLACES if name.startswith("gke")])
def test_a_manifest_is_a_jobset(place):
    job, found = read(str(ROOT / EXAMPLE), place)
    manifest = yaml.safe_load(found.files(job)["jobset.yaml"])
    jsonschema.validate(manifest, SCHEMA)
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["completion"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize("place", PLACES)
def test_scripts_are_shell(place):
    job, found = read(str(ROOT / EXAMPLE), place)
    for name, text in found.files(job).items():
        if name.endswith((".sh", ".sbatch")):
            assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0, name


def test_options_reach_the_script():
    slurm = Slurm("/code", nodes=2, tasks=4, gpus=8, partition="long", account="us", options=("--constraint=h100",))
    text = slurm.files(Job("a", "b.py", "/c", env=("X=a b",)))["job.sbatch"]
    for line in (
        *("#SBATCH --partition=long", "#SBATCH --account=us", "#SBATCH --constraint=h100", "#SBATCH --requeue"),
        *("export 'X=a b'", "srun --kill-on-bad-exit=1 --gpus-per-task=2 python3 -m lm.train --config=b.py"),
    ):
        assert f"\n{line}" in text
    slices = QueuedResource("p", "z", "v6e:4x4", "b", slices=2, kind="reserved", mount="/runs")
    (create,) = slices.steps("create", JOB, "f")
    assert {"--accelerator-type=v6e-16", "--node-count=2", "--node-prefix=tiny", "--reserved"} <= set(create.command)
    assert [s.command[5] for s in slices.steps("run", JOB, "f")] == ["tiny-0", "tiny-1"]


# Scripts


def script(tmp_path: Path, body: str, **knobs) -> subprocess.Popen[str]:
    """run.sh of a job whose command is `body`, a bash script, begun."""
    (tmp_path / "command").write_text(f"echo run >> {tmp_path}/runs\n{body}\n")
    job = Job("tiny", "c.py", "/runs/tiny", pause=0, **knobs)
    run = tmp_path / "run.sh"
    run.write_text(job.script(f"bash {tmp_path}/command", f"cd {tmp_path}"))
    return subprocess.Popen(["bash", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().splitlines())


@pytest.mark.parametrize(("status", "restarts", "times"), [(0, 5, 1), (2, 5, 1), (130, 5, 1), (143, 5, 1), (134, 3, 4)])
def test_what_may_pass_is_started_again(tmp_path, status, restarts, times):
    done = script(tmp_path, f"exit {status}", restarts=restarts)
    _, told = done.communicate(timeout=30)
    assert (done.returncode, runs(tmp_path)) == (status, times)
    assert ("tiny ended with status 134; again in 0 s" in told) == (status == 134)


def test_a_run_that_recovers_is_done(tmp_path):
    done = script(tmp_path, f"[ $(wc -l < {tmp_path}/runs) -ge 3 ] || kill -9 $$", restarts=5)
    done.communicate(timeout=30)
    assert (done.returncode, runs(tmp_path)) == (0, 3)


def test_sigterm_reaches_the_command_which_saves_first(tmp_path):
    saving = f"trap 'sleep 0.3; echo saved > {tmp_path}/saved; exit 143' TERM"
    begun = script(tmp_path, f"{saving}; sleep 20 > /dev/null 2>&1 & wait $!")
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    time.sleep(0.2)
    begun.send_signal(signal.SIGTERM)
    begun.communicate(timeout=30)
    assert (begun.returncode, runs(tmp_path)) == (143, 1)
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_what_is_started_on_a_host_outlives_the_shell_and_is_not_started_twice(tmp_path):
    """The commands that ssh carries, run by the shell here."""
    (tmp_path / "pure-lm").mkdir()
    hosts = Hosts(("here",))
    (tmp_path / "pure-lm" / "run.sh").write_text(
        f"cd {tmp_path}/pure-lm; trap 'echo $? > run.status' EXIT; echo $1 >> runs; sleep 2; exit 7"
    )
    (*_, start) = hosts.steps("run", JOB, "folder")
    (ask,) = hosts.steps("status", JOB, "folder")

    def on_host(step) -> str:
        assert step.command[:2] == ("ssh", "here")
        env = os.environ | {"HOME": str(tmp_path)}
        return subprocess.run(["bash", "-c", step.command[2]], env=env, capture_output=True, text=True).stdout

    assert on_host(start) == "" and on_host(start) == "runs already\n" and on_host(ask) == ""
    while not on_host(ask):
        time.sleep(0.1)
    assert on_host(ask) == "7\n" and (tmp_path / "pure-lm" / "runs").read_text() == "0\n"


# Machines that are taken away


class Cloud:
    """A cloud that gives machines a while after they are asked for, and takes them back once."""

    def __init__(self, ends: list[str]) -> None:
        self.states, self.ends, self.did, self.told = ["none"], ends, [], []

    def do(self, step) -> None:
        name = " ".join(step.command)
        for what in ("create", "delete", "setup.sh", "setsid"):
            if what in name and "scp" not in name:
                self.did.append(what)
        if "create" in name:
            self.states = ["WAITING_FOR_RESOURCES", "ACTIVE", "ACTIVE", *(["SUSPENDED"] if len(self.ends) > 1 else [])]
            self.states += ["ACTIVE"] * 9
            self.runs = self.ends.pop(0)

    def ask(self, step) -> str | None:
        if "describe" in step.command:
            state = self.states.pop(0)
            return None if state == "none" else state + "\n"
        return self.runs if len(self.states) < 9 else ""


PLACE = QueuedResource("p", "z", "v5e:4x4", "b", mount="/runs")


def test_a_job_is_kept_on_machines_that_are_taken_away():
    cloud = Cloud(["", "0\n"])
    keep(PLACE, JOB, "f", cloud.do, cloud.ask, cloud.told.append, sleep=lambda s: None)
    once = ["create", "setup.sh", "setsid"]
    assert cloud.did == [*once, "delete", *once]
    assert cloud.told[-1].startswith("tiny: done") and "tiny: SUSPENDED" in cloud.told


def test_a_job_that_fails_for_good_is_not_kept():
    cloud = Cloud(["2\n"])
    with pytest.raises(UserError, match="tiny ended with status 2: read its log"):
        keep(PLACE, JOB, "f", cloud.do, cloud.ask, cloud.told.append, sleep=lambda s: None)


# What is wrong


def call(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({} if path is None else {"PATH": path})
    return subprocess.run(
        [sys.executable, "-m", "tpu.launch", *words], cwd=ROOT, capture_output=True, text=True, env=env
    )


def test_the_command_line(tmp_path):
    """One process for what goes well and two for what does not."""
    example = f"--launch={EXAMPLE}"
    shown = call(example, "--on=slurm", "--dry-run")
    assert shown.returncode == 0 and shown.stdout.endswith("$ sbatch runs/launch/llama-8b/job.sbatch\n")
    assert not (ROOT / "runs" / "launch" / "llama-8b").exists()
    missing = call(example, "--on=slurm", f"--out={tmp_path}", path=str(tmp_path))
    assert missing.returncode == 2 and "error: sbatch is not installed here" in missing.stderr
    assert (tmp_path / "llama-8b" / "job.sbatch").exists()
    wrong = call(example, "--on=slrum")
    assert wrong.returncode == 2 and "no place of that name; did you mean 'slurm'?" in wrong.stderr


@pytest.mark.parametrize(
    ("job", "place", "line"),
    [
        ({"name": "My Run"}, {}, "job.name='My Run' must be a letter"),
        ({"env": ("HF_TOKEN=x",)}, {}, "job.env: HF_TOKEN looks like a secret"),
        ({"env": ("X",)}, {}, "job.env: 'X' is no NAME=value"),
        ({"knobs": ("config.a=1",)}, {}, "'config.a=1' is no flag"),
        ({"retries": 3}, {}, "job.retries is no knob of Job"),
        ({}, {"topology": "v5q:4x4"}, "no TPU generation 'v5q'"),
        ({}, {"topology": "v5p:4x4"}, "must be v5p: and 4x4x4"),
        ({}, {"kind": "cheap"}, "kind='cheap' must be one of on-demand, spot, reserved"),
        ({"workdir": "/elsewhere"}, {}, "is no folder in /runs"),
        ({}, {"type": "Slurm", "folder": "/f", "gpus": 3, "tasks": 2}, "gpus=3 of a node do not divide"),
        ({}, {"type": "Hosts", "hosts": ()}, "must name at least one host"),
        ({}, {"type": "JobSet", "image": "i", "bucket": "b"}, "a topology .TPUs. or gpus"),
        ({}, {"type": "Dropless"}, "places.it is no place"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, job, place, line):
    job = {"name": "a", "config": "b.py", "workdir": "/runs/a"} | job
    tpu = {"type": "QueuedResource", "project": "p", "zone": "z", "topology": "v5e:4x4", "bucket": "b"}
    place = place if "type" in place else tpu | {"mount": "/runs"} | place
    file = tmp_path / "launch.py"
    config = {"job": job, "places": {"it": place}}
    file.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({config!r})\n")
    with pytest.raises(UserError, match=line):
        made, found = read(str(file), "it")
        found.files(made)
