"""SLURM, for GPUs or CPUs: a batch script that srun starts on every node, requeued until the run is done."""

import shlex
from collections.abc import Mapping
from typing import Annotated

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import AT_LEAST_1, NOT_NEGATIVE
from tpu.launch.job import WAIT, Job
from tpu.launch.place import Step

ACTIONS = {
    "submit": "hand the batch script to sbatch",
    "status": "list the job as squeue sees it",
    "logs": "follow the job's output",
    "stop": "have the job save and end; it is not requeued",
}
SCRIPT = """\
#!/usr/bin/env bash
# {name}: written by `python -m tpu.launch`; change its file, not this one.
# The same command goes on from the last checkpoint of the workdir, so a failure needs no more than being queued again.
{options}
set -uo pipefail
{setting}
# SLURM sends TERM {grace} s before the time is over, and when it preempts. The run saves, and is queued again.
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM  # to the steps; srun itself would have them killed
{command} &
child=$!
{wait}
if [ -e {stop} ]; then rm -f {stop}; exit 0; fi
case $status in 0 | 2 | 130) exit "$status" ;; esac
if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {restarts} ]; then
  echo "{name} ended with status $status after $SLURM_RESTART_COUNT restarts, which is as often as it may" >&2
  exit "$status"
fi
echo "{name} ended with status $status; it is queued again" >&2
scontrol requeue "$SLURM_JOB_ID"
"""


@component
class Slurm:
    """A batch job of `nodes` nodes with `tasks` processes each.

    folder: the checkout, on a disk that all nodes share, with its environment (job.python).
    gpus: of each node; each process sees those that SLURM binds to it.
    time: limit as SLURM writes it (D-HH:MM:SS): the job goes on after it, queued again.
    grace: seconds before the end of that time in which the run saves.
    partition, account: "" for the cluster's default; options: further lines, as "--constraint=h100"."""

    folder: str
    nodes: Annotated[int, AT_LEAST_1] = 1
    tasks: Annotated[int, AT_LEAST_1] = 1
    gpus: Annotated[int, NOT_NEGATIVE] = 0
    cpus: Annotated[int, AT_LEAST_1] = 1
    time: str = "1-00:00:00"
    grace: Annotated[int, NOT_NEGATIVE] = 300
    partition: str = ""
    account: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gpus and self.gpus % self.tasks:
            raise UserError(f"gpus={self.gpus} of a node do not divide among tasks={self.tasks}: change one of them")
        for option in self.options:
            if not option.startswith("--"):
                raise UserError(f"options: {option!r} is no option of sbatch: write it as --constraint=h100")

    @property
    def actions(self) -> Mapping[str, str]:
        return ACTIONS

    def files(self, job: Job) -> dict[str, str]:
        options = [
            f"--job-name={job.name}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.tasks}",
            f"--cpus-per-task={self.cpus}",
            *([f"--gpus-per-node={self.gpus}"] if self.gpus else []),
            f"--time={self.time}",
            *([f"--partition={self.partition}"] if self.partition else []),
            *([f"--account={self.account}"] if self.account else []),
            f"--signal=B:TERM@{self.grace}",
            "--requeue",
            "--open-mode=append",  # a job that is queued again keeps its output
            f"--chdir={self.folder}",
            f"--output={job.name}.log",
            *self.options,
        ]
        # Without a number of its own, each task would see all GPUs of its node. A single process is no cluster.
        bind = [f"--gpus-per-task={self.gpus // self.tasks}"] if self.gpus else []
        alone = self.nodes * self.tasks == 1
        run = ["srun", "--kill-on-bad-exit=1", *bind, *job.command(*([] if alone else ["--coordinator=auto"]))]
        text = SCRIPT.format(
            name=job.name,
            options="\n".join(f"#SBATCH {option}" for option in options),
            setting="\n".join(f"export {shlex.quote(pair)}" for pair in job.env),
            command=shlex.join(run),
            wait=WAIT,
            grace=self.grace,
            restarts=job.restarts,
            stop=f"{job.name}.stop",
        )
        return {"job.sbatch": text.replace("\n\n", "\n")}

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        named, log = f"--name={job.name}", f"{self.folder}/{job.name}.log"
        return {
            "submit": [Step(("sbatch", f"{folder}/job.sbatch"))],
            "status": [Step(("squeue", named, "--format=%i %j %T %M %D %R"))],
            "logs": [Step(("tail", "-n", "100", "-F", log))],
            "stop": [
                Step(("touch", f"{self.folder}/{job.name}.stop")),
                Step(("scancel", named, "--batch", "--signal=TERM")),
            ],
        }[action]
