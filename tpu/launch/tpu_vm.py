"""TPU VMs that are asked for as queued resources, with gcloud."""

import shlex
from collections.abc import Mapping

from lm.core.component import component
from lm.core.errors import UserError
from tpu.launch import remote
from tpu.launch.job import Job
from tpu.launch.place import Step
from tpu.pods import pod

ACTIONS = {
    "keep": "create what is not there, set it up, run, and all of that again after each preemption, until it is done",
    "create": "ask for the machines",
    "setup": "copy the code to every worker and install it",
    "run": "start the job on every worker",
    "logs": "follow the log of the first worker",
    "status": "say what became of the request: WAITING_FOR_RESOURCES, ACTIVE, SUSPENDED ...",
    "stop": "have the job save and end",
    "delete": "give the machines back",
}
BOOTING = 30.0  # seconds between tries of what a machine that still boots refuses


@component
class QueuedResource:
    """TPU VMs of one topology, on which every worker has the code and runs the same script.

    project, zone: of Google Cloud.
    topology: as v5p:4x4x4; slices: how many of these, joined by the data centre's network.
    kind: "on-demand", "spot" (cheap, and taken back at any time) or "reserved".
    code: folder that is copied to the workers, a checkout; home: where it goes, in the user's folder there.
    bucket: of Cloud Storage, mounted by gcsfuse at `mount` on every worker, so that they share job.workdir.
    runtime: the machine's image; "": what goes with the generation."""

    project: str
    zone: str
    topology: str
    bucket: str
    slices: int = 1
    kind: str = "on-demand"
    code: str = "."
    home: str = "pure-lm"
    mount: str = "/mnt/runs"
    runtime: str = ""

    @property
    def actions(self) -> Mapping[str, str]:
        return ACTIONS

    def __post_init__(self) -> None:
        pod(self.topology)
        if self.kind not in (kinds := ("on-demand", "spot", "reserved")):
            raise UserError(f"kind={self.kind!r} must be one of {', '.join(kinds)}")
        if self.slices < 1:
            raise UserError(f"slices={self.slices} must be at least 1")

    def files(self, job: Job) -> dict[str, str]:
        if not job.workdir.startswith(f"{self.mount}/"):
            raise UserError(
                f"job.workdir={job.workdir!r} is no folder in {self.mount}, where the workers' common bucket is mounted"
            )
        setup = (
            "#!/usr/bin/env bash\n"
            f"# {job.name}: what each worker needs; written by `python -m tpu.launch`. May be run again.\n"
            "set -euo pipefail\n"
            f"cd ~/{shlex.quote(self.home)} && tar xzf ~/{job.name}.tar.gz\n"
            "if ! command -v gcsfuse > /dev/null; then\n"
            "  key=/usr/share/keyrings/cloud.google.asc from=https://packages.cloud.google.com/apt\n"
            '  curl -fsS "$from/doc/apt-key.gpg" | sudo tee "$key" > /dev/null\n'
            '  echo "deb [signed-by=$key] $from gcsfuse-$(lsb_release -cs) main" | '
            "sudo tee /etc/apt/sources.list.d/gcsfuse.list\n"
            "  sudo apt-get update -q && sudo apt-get install -qy gcsfuse python3-venv\n"
            "fi\n"
            f'sudo mkdir -p {shlex.quote(self.mount)} && sudo chown "$USER" {shlex.quote(self.mount)}\n'
            f"mountpoint -q {shlex.quote(self.mount)} || gcsfuse --implicit-dirs {shlex.quote(self.bucket)} "
            f"{shlex.quote(self.mount)}\n"
            "[ -x .venv/bin/python ] || python3 -m venv .venv\n"
            '.venv/bin/python -m pip install -q -e ".[tpu]"\n'
        )
        command = shlex.join(job.on_slices(self.slices, python=remote.PYTHON))
        run = job.script(command, f"cd ~/{shlex.quote(self.home)}\n{remote.KEEP_STATUS}")
        return {"setup.sh": setup, "run.sh": run}

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        return {
            "create": self._create,
            "setup": self._setup,
            "run": self._run,
            "logs": self._logs,
            "status": self._status,
            "stop": self._stop,
            "delete": self._delete,
        }[action](job, folder)

    @property
    def _where(self) -> tuple[str, ...]:
        return (f"--project={self.project}", f"--zone={self.zone}")

    def _nodes(self, job: Job) -> list[str]:
        return [job.name] if self.slices == 1 else [f"{job.name}-{i}" for i in range(self.slices)]

    def _create(self, job: Job, folder: str) -> list[Step]:
        slice = pod(self.topology)
        nodes = (
            (f"--node-id={job.name}",)
            if self.slices == 1
            else (f"--node-count={self.slices}", f"--node-prefix={job.name}")
        )
        runtime = self.runtime or slice.generation.runtime
        kind = () if self.kind == "on-demand" else (f"--{self.kind}",)
        flags = (f"--accelerator-type={slice.accelerator}", f"--runtime-version={runtime}", *nodes, *kind)
        return [Step((*QUEUED, "create", job.name, *self._where, *flags))]

    def _setup(self, job: Job, folder: str) -> list[Step]:
        packed = f"{folder}/{job.name}.tar.gz"
        steps = [Step(("git", "-C", self.code, "archive", "--format=tar.gz", f"--output={packed}", "HEAD"))]
        for node in self._nodes(job):
            files = (packed, f"{folder}/setup.sh", f"{folder}/run.sh")
            steps += [
                self._on(node, f"mkdir -p ~/{self.home}", again=BOOTING),
                Step((*TPU_VM, "scp", *files, f"{node}:", *ALL, *self._where)),
                self._on(node, f"mv ~/setup.sh ~/run.sh ~/{self.home}/ && bash ~/{self.home}/setup.sh"),
            ]
        return steps

    def _run(self, job: Job, folder: str) -> list[Step]:
        return [self._on(node, remote.start(f"~/{self.home}")) for node in self._nodes(job)]

    def _logs(self, job: Job, folder: str) -> list[Step]:
        return [self._on(self._nodes(job)[0], remote.follow(f"~/{self.home}"), workers=FIRST)]

    def _status(self, job: Job, folder: str) -> list[Step]:
        return [Step((*QUEUED, "describe", job.name, *self._where, "--format=value(state.state)"))]

    def ended(self, job: Job) -> Step:
        """Prints the status with which the job has ended on the first worker; nothing while it runs."""
        return self._on(self._nodes(job)[0], remote.ended(f"~/{self.home}"), workers=FIRST)

    def _stop(self, job: Job, folder: str) -> list[Step]:
        return [self._on(node, remote.stop(f"~/{self.home}")) for node in self._nodes(job)]

    def _delete(self, job: Job, folder: str) -> list[Step]:
        return [Step((*QUEUED, "delete", job.name, *self._where, "--force", "--quiet"))]

    def _on(self, node: str, command: str, again: float = 0.0, workers: tuple[str, ...] = ()) -> Step:
        return Step((*TPU_VM, "ssh", node, *(workers or ALL), *self._where, f"--command={command}"), again)


QUEUED = ("gcloud", "compute", "tpus", "queued-resources")
TPU_VM = ("gcloud", "compute", "tpus", "tpu-vm")
ALL, FIRST = ("--worker=all",), ("--worker=0",)
