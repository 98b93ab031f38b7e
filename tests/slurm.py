"""A SLURM of one machine, begun for a test: jobs really run."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

NEEDED = pytest.mark.skipif(
    not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd"))) or os.geteuid() != 0,
    reason="needs SLURM's daemons and root (Debian and Ubuntu: apt install slurm-wlm)",
)
CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def wait(what, seconds: float = 400.0):
    """What `what` finds, once it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.3)
    raise AssertionError(f"it did not come in {seconds:.0f} s")


@contextmanager
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of one node, this machine, with its files in `folder`. Skips where it has less than two CPUs."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    ports = [free_port(), free_port()]
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("two tasks need two CPUs")
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, user=user, folder=folder, ports=ports, cpus=os.cpu_count()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with ExitStack() as stack:
        for daemon in ("slurmctld", "slurmd"):
            begun = subprocess.Popen([daemon, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(begun.wait)
            stack.callback(begun.terminate)
            time.sleep(1)
        wait(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout, 60)
        yield
