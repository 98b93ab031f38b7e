"""SLURM: the units are one job array, written to `array.sbatch` in the sweep's folder, which all nodes share."""

import hashlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lm.core.errors import UserError

from .backend import command

SCRIPT = """\
#!/usr/bin/env bash
# Units of a sweep: written by `python -m scaling.sweep --backend=slurm`, and overwritten by its next call.
#SBATCH --job-name={name}
#SBATCH --array={units}
#SBATCH --cpus-per-task={cpus}
#SBATCH --open-mode=append
#SBATCH --chdir={folder}
#SBATCH --output={logs}/%a.log
{options}
exec {command}
"""


class Slurm:
    """options: further lines for sbatch, as --time=1:00:00, --partition=long, --gpus-per-task=1.

    Raises `UserError` where SLURM is not there, or units of an earlier call still run."""

    def __init__(self, out: Path, cpus: int = 1, options: Sequence[str] = ()) -> None:
        self._out, self._cpus, self._options = out.absolute(), cpus, tuple(options)
        for option in options:
            if not option.startswith("--"):
                raise UserError(f"--slurm={option}: write an option of sbatch whole, as --slurm=--time=1:00:00")
        # Of the folder, so that another call knows its jobs.
        self._name = f"sweep-{hashlib.blake2b(str(self._out).encode(), digest_size=4).hexdigest()}"
        if left := self.running():
            raise UserError(
                f"{len(left)} units of this sweep are still queued as {self._name}: wait for them, or "
                f"scancel --name={self._name}"
            )

    def script(self, units: Sequence[int]) -> str:
        text = SCRIPT.format(
            name=self._name,
            units=",".join(map(str, units)),
            cpus=self._cpus,
            folder=shlex.quote(str(Path.cwd())),
            logs=self._out / "logs",
            options="\n".join(f"#SBATCH {option}" for option in self._options),
            command=shlex.join(command(self._out, "UNIT")).replace("UNIT", '"$SLURM_ARRAY_TASK_ID"'),
        )
        return text.replace("\n\n", "\n")

    def start(self, units: Sequence[int]) -> None:
        path = self._out / "array.sbatch"
        path.write_text(self.script(units), encoding="utf-8")
        _call("sbatch", str(path))

    def running(self) -> set[int]:
        listed = _call("squeue", "--noheader", "--array", f"--name={self._name}", "--format=%K")
        return {int(unit) for unit in listed.split()}

    def stop(self) -> None:
        _call("scancel", f"--name={self._name}")


def _call(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as e:
        raise UserError(f"--backend=slurm: there is no {words[0]} here; call it on a login node of the cluster") from e
    if done.returncode:
        raise UserError(f"{words[0]} ended with status {done.returncode}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout
