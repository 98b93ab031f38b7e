"""Machines with GPUs (or none) that are reached by ssh: one process a host, no cluster manager."""

import shlex
from collections.abc import Mapping

from lm.core.component import component
from lm.core.errors import UserError
from tpu.launch import remote
from tpu.launch.job import Job
from tpu.launch.place import Step

ACTIONS = {
    "run": "copy the code to every host, install it, and start the job there",
    "logs": "follow the log of the first host",
    "status": "print the status with which each host's process has ended; nothing while it runs",
    "stop": "have the job save and end",
}


@component
class Hosts:
    """Hosts that share a disk on which job.workdir lies, each with a process of the run.

    hosts: as ssh knows them; the first one's name must be reachable by the others, at `port`.
    code: folder that is copied to the hosts, a checkout; home: where it goes.
    extra: of the package, what its accelerators need: "cuda", or "" for CPUs."""

    hosts: tuple[str, ...]
    code: str = "."
    home: str = "pure-lm"
    extra: str = "cuda"
    port: int = 9911

    def __post_init__(self) -> None:
        if not self.hosts or len(set(self.hosts)) < len(self.hosts):
            raise UserError(f"hosts={self.hosts!r} must name at least one host, each once")

    @property
    def actions(self) -> Mapping[str, str]:
        return ACTIONS

    def files(self, job: Job) -> dict[str, str]:
        first = self.hosts[0].rpartition("@")[2]
        flags = (f"--coordinator={first}:{self.port}", f"--processes={len(self.hosts)}")
        command = f'{shlex.join(job.command(*flags, python=remote.PYTHON))} --process="$1"'
        return {"run.sh": job.script(command, remote.KEEP_STATUS)}

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        home = f"~/{self.home}"
        if action == "run":
            needs = f".[{self.extra}]" if self.extra else "."
            install = (
                f"cd {home} && {{ [ -x .venv/bin/python ] || python3 -m venv .venv; }} && "
                f".venv/bin/python -m pip install -q -e {shlex.quote(needs)}"
            )
            copied = ["rsync", "-az", "--filter=:- .gitignore", "--exclude=.git", f"{self.code.rstrip('/')}/"]
            steps = []
            for i, host in enumerate(self.hosts):
                steps += [
                    Step((*copied, f"{host}:{self.home}/")),
                    Step(("rsync", "-a", f"{folder}/run.sh", f"{host}:{self.home}/")),
                    Step(("ssh", host, install)),
                    Step(("ssh", host, remote.start(home, f" {i}"))),
                ]
            return steps
        if action == "logs":
            return [Step(("ssh", self.hosts[0], remote.follow(home)))]
        ask = remote.ended(home) if action == "status" else remote.stop(home)
        return [Step(("ssh", host, ask)) for host in self.hosts]
