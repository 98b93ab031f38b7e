"""What a place is: where a job runs, and which commands make it run there."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from tpu.launch.job import Job

Command = tuple[str, ...]


class Step(NamedTuple):
    """A command of the cluster's own tool. `again`: how its failure may pass (a machine that still boots), in seconds
    between tries; 0: not."""

    command: Command
    again: float = 0.0


class Place(Protocol):
    """A component: the knobs of a cluster."""

    @property
    def actions(self) -> Mapping[str, str]:
        """What can be asked for, with a line of help each; the first is what is done without `--do`."""

    def files(self, job: Job) -> dict[str, str]:
        """The files of the job: name -> text. Deterministic: nothing of this machine, no time."""

    def steps(self, action: str, job: Job, folder: str) -> list[Step]:
        """The commands of an action, in turn; `folder` is where `files` are."""
