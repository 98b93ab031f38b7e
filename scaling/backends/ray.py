"""A Ray cluster, whose machines share the sweep's folder and have this package (extra `ray`)."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lm.core.optional import package

from .backend import command, log_of


class Ray:
    """A task for each unit. address: of the cluster; "auto": the one that this machine belongs to. cpus, gpus: that a
    unit takes."""

    def __init__(self, out: Path, address: str = "auto", cpus: int = 1, gpus: int = 0) -> None:
        self._ray = package("ray", "--backend=ray", "ray")
        self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        self._out = out.absolute()
        # A unit that fails is started again by the sweep, which counts how often.
        self._run = self._ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._tasks: dict[int, object] = {}

    def start(self, units: Sequence[int]) -> None:
        for unit in units:
            words = command(self._out, unit)
            self._tasks[unit] = self._run.remote(words, str(log_of(self._out, unit)), os.getcwd())

    def running(self) -> set[int]:
        ended, _ = self._ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
        self._tasks = {unit: task for unit, task in self._tasks.items() if task not in ended}
        return set(self._tasks)

    def stop(self) -> None:
        for task in self._tasks.values():
            self._ray.cancel(task, force=True)
        self._ray.shutdown()


def _run(words: list[str], log: str, folder: str) -> int:
    """On a machine of the cluster. A process of its own, so that whatever ends it is no end of Ray's worker."""
    with open(log, "ab") as file:
        return subprocess.run(words, stdout=file, stderr=file, cwd=folder, check=False).returncode
