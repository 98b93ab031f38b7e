"""Start a training job on TPU VMs, Kubernetes, SLURM or hosts with GPUs, and start it again after failures.

    python -m tpu.launch --launch=tpu/launch/example.py --on=slurm --dry-run    show what would be written and run
    python -m tpu.launch --launch=tpu/launch/example.py --on=slurm              do it
    python -m tpu.launch --launch=tpu/launch/example.py --on=tpu --do=logs      follow its log

The file's get_config() gives the job (a config of lm.train, a workdir on a disk that all hosts share, knobs) and places
by name: QueuedResource (TPU VMs, gcloud), JobSet (GKE, kubectl), Xpk, Slurm (sbatch), Hosts (ssh). Every place starts
the same command again after a failure, which goes on from the last checkpoint. No secret is read or written: the tools
of each cluster know who you are."""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError, nearest
from tpu.launch.place import Step

LAUNCH = flags.DEFINE_string("launch", None, "File with the job and its places; tpu/launch/example.py is one.")
ON = flags.DEFINE_string("on", None, "Which place of the file.")
DO = flags.DEFINE_string("do", None, "What to do there; --do=help lists it. Default: start the job.")
DRY = flags.DEFINE_boolean("dry-run", False, "Print the files and the commands; write and run nothing.")
OUT = flags.DEFINE_string("out", "runs/launch", "Folder for the files: a folder of the job's name in it.")

USAGE = "--launch=FILE --on=NAME [--do=ACTION] [--dry-run]"


def main(argv: list[str]) -> None:
    for name, value in (("launch", LAUNCH.value), ("on", ON.value)):
        if not value:
            raise UserError(cli.lacking(name, usage=USAGE))
    from tpu.launch.read import read

    job, place = read(str(LAUNCH.value), str(ON.value))
    action = DO.value or next(iter(place.actions))
    if action == "help":
        print(*(f"--do={name:<8} {text}" for name, text in place.actions.items()), sep="\n")
        return
    if action not in place.actions:
        raise UserError(f"--do={action} is nothing that {ON.value} does{nearest(action, place.actions)}; see --do=help")
    files, folder = place.files(job), Path(OUT.value) / job.name
    if DRY.value:
        for name, text in files.items():
            print(f"# {folder / name}", text, sep="\n")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    if action == "keep" and not DRY.value:
        from tpu.launch.keep import keep
        from tpu.launch.tpu_vm import QueuedResource

        assert isinstance(place, QueuedResource)  # which alone can be kept
        keep(place, job, str(folder), _do, _ask, _tell)
        return
    for part in ("create", "setup", "run") if action == "keep" else (action,):
        for step in place.steps(part, job, str(folder)):
            if DRY.value:
                print(f"$ {shlex.join(step.command)}")
            else:
                _do(step)


def _do(step: Step, tries: int = 20) -> None:
    """Run a command of the cluster; what may pass is tried again."""
    _tell(f"$ {shlex.join(step.command)}")
    for left in reversed(range(tries)):
        status = subprocess.run(_found(step.command)).returncode
        if status == 0:
            return
        if not step.again or not left:
            break
        _tell(f"status {status}; again in {step.again:.0f} s")
        time.sleep(step.again)
    raise UserError(f"{step.command[0]} ended with status {status}; it says why above")


def _ask(step: Step) -> str | None:
    done = subprocess.run(_found(step.command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout if done.returncode == 0 else None


def _found(command: tuple[str, ...]) -> tuple[str, ...]:
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} is not installed here: install it, or see with --dry-run what it would be told")
    return command


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
