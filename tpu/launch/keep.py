"""Keep a job on machines that may be taken away: what `--do=keep` does with queued resources."""

import time
from collections.abc import Callable

from lm.core.errors import UserError
from tpu.launch.job import Job
from tpu.launch.place import Step
from tpu.launch.tpu_vm import QueuedResource

LOST = ("SUSPENDED", "FAILED")  # states of a request that come to nothing more
STOPPED = 143  # of run.sh, after SIGTERM: the machine was about to go


def keep(
    place: QueuedResource,
    job: Job,
    folder: str,
    do: Callable[[Step], None],
    ask: Callable[[Step], str | None],
    tell: Callable[[str], None],
    every: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Create, set up, run, and once more whenever the machines are lost, until the job has ended with status 0.

    do: runs a step, and raises where it fails; ask: what a step prints, None where it fails.
    Raises `UserError` where the job ends with a status that comes again."""

    def all_of(action: str) -> None:
        for step in place.steps(action, job, folder):
            do(step)

    before, started = None, False
    while True:
        state = (ask(place.steps("status", job, folder)[0]) or "").strip() or "none"
        if state != before:
            tell(f"{job.name}: {state}")
        before = state
        if state in LOST:
            all_of("delete")
        if state in (*LOST, "none"):
            all_of("create")
            started = False
        elif state == "ACTIVE":
            status = (ask(place.ended(job)) or "").strip() if started else ""
            if status == "0":
                tell(f"{job.name}: done; `--do=delete` gives the machines back")
                return
            if status not in ("", str(STOPPED)):
                raise UserError(f"{job.name} ended with status {status}: read its log with --do=logs")
            if not started or status:
                all_of("setup")
                all_of("run")
                started = True
        sleep(every)
