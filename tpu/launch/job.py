"""What runs, wherever it runs: a training command that any number of hosts start together, and start again."""

import re
import shlex
import textwrap
from typing import Annotated

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import NOT_NEGATIVE, POSITIVE

SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|API_?KEY", re.IGNORECASE)
# The loop around the command. Statuses of lm.train: 0 done; 143 saved after SIGTERM, on this host or another; 2 wrong
# input and 130 Ctrl-C, which would come again. Whatever else ended it, the last checkpoint mends.
SCRIPT = """\
#!/usr/bin/env bash
# {name}: written by `python -m tpu.launch`; change its file, not this one.
# The same command goes on from the last checkpoint of the workdir, so a failure needs no more than starting again.
set -uo pipefail
{setting}
stopped=
trap 'stopped=143; kill -TERM "$child" 2>/dev/null' TERM
for attempt in $(seq 0 {restarts}); do
  {command} &
  child=$!
{wait}
  case ${{stopped:-$status}} in 0 | 2 | 130 | 143) break ;; esac
  echo "{name} ended with status $status; again in {pause} s" >&2
  sleep {pause}
done
exit "$status"
"""
# A trapped signal ends `wait`, not the command, which saves first.
WAIT = """\
wait "$child"; status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done"""


@component
class Job:
    """A run of `lm.train` that can be started on any place.

    name: of the run, and of what is made for it: letters, digits and hyphens.
    config: the experiment file, relative to the code on the hosts; a run's folder does as well.
    workdir: the run's folder, on a disk that all hosts share: there it goes on after a failure.
    knobs: further flags of `lm.train`, as "--config.mesh.fsdp=16".
    env: NAME=value of each variable that is set. No secrets: what is written is readable by all.
    python: the interpreter on the hosts, unless their place installs one.
    restarts: how often a host starts the command again, after `pause` seconds.
    wait: seconds in which the other hosts must have started."""

    name: str
    config: str
    workdir: str
    knobs: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    python: str = "python3"
    restarts: Annotated[int, NOT_NEGATIVE] = 100
    pause: Annotated[int, NOT_NEGATIVE] = 15
    wait: Annotated[int, POSITIVE] = 1800

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise UserError(
                f"job.name={self.name!r} must be a letter, then at most 39 small letters, digits and hyphens: clusters "
                "call machines by it"
            )
        for knob in self.knobs:
            if not knob.startswith("--"):
                raise UserError(f"job.knobs: {knob!r} is no flag: write it as --config.a.b=value")
        for pair in self.env:
            name, equals, _ = pair.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise UserError(f"job.env: {pair!r} is no NAME=value")
            if SECRET.search(name):
                raise UserError(f"job.env: {name} looks like a secret, and this is written to plain files: take it out")

    def on_slices(self, slices: int, python: str | None = None) -> list[str]:
        """`command` on so many TPU slices, across which only the mesh axis `slice` lies."""
        across = [f"--config.mesh.slice={slices}"] if slices > 1 else []
        return self.command("--coordinator=auto", *across, python=python)

    def command(self, *flags: str, python: str | None = None) -> list[str]:
        """What each host runs, with the flags of its place, and its interpreter."""
        run = [python or self.python, "-m", "lm.train", f"--config={self.config}", f"--workdir={self.workdir}"]
        return [*run, f"--wait={self.wait}", *flags, *self.knobs]

    def script(self, command: str, before: str = "") -> str:
        """`run.sh`: the shell command until it is done, after the lines `before`."""
        setting = "\n".join([f"export {shlex.quote(pair)}" for pair in self.env] + ([before] if before else []))
        return SCRIPT.format(
            name=self.name,
            setting=setting,
            command=command,
            wait=textwrap.indent(WAIT, "  "),
            restarts=self.restarts,
            pause=self.pause,
        ).replace("\n\n", "\n")
