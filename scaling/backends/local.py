"""Processes of this machine, each with cores of its own: small models cannot make several cores busy."""

import os
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from .backend import command, log_of

PATIENCE = 10.0  # seconds that a process has to end by itself


class Local:
    """So many `workers` at once; 0: one for each core on a CPU, and one where there is an accelerator."""

    def __init__(self, out: Path, workers: int, platform: str) -> None:
        # Where the system cannot keep a process to some cores (macOS), all share them.
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        auto = (len(cores) or os.cpu_count() or 1) if platform == "cpu" else 1
        self._out = out
        self._slots: dict[int, list[int]] = {slot: cores[slot :: workers or auto] for slot in range(workers or auto)}
        self._queue: deque[int] = deque()
        self._processes: dict[int, tuple[int, subprocess.Popen]] = {}  # slot: unit and its process

    def start(self, units: Sequence[int]) -> None:
        self._queue.extend(units)
        self._fill()

    def running(self) -> set[int]:
        for slot, (_, process) in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[slot]
        self._fill()
        return {unit for unit, _ in self._processes.values()} | set(self._queue)

    def stop(self) -> None:
        self._queue.clear()
        for _, process in self._processes.values():
            process.terminate()
        for _, process in self._processes.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _fill(self) -> None:
        for slot, cores in self._slots.items():
            if self._queue and slot not in self._processes:
                unit = self._queue.popleft()
                pinned = [f"--cores={','.join(map(str, cores))}"] if cores else []
                words = command(self._out, unit, "--tied", *pinned)
                with log_of(self._out, unit).open("ab") as log:
                    # A session of its own: Ctrl-C is for the sweep, which then ends its processes. One that is killed
                    # closes the pipe, and so ends them too.
                    process = subprocess.Popen(
                        words, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                    )
                self._processes[slot] = unit, process
