"""A trace of some steps on demand, for TensorBoard's profile tab, XProf or Perfetto."""

import signal
from pathlib import Path
from typing import Any

import jax
from rich.console import Console


class Profiler:
    """Traces `steps` steps from step `at` on, and whenever the process gets SIGUSR1, to <folder>/<first step>."""

    def __init__(self, folder: Path, at: int, steps: int, console: Console) -> None:
        self.folder, self.at, self.steps, self.console = folder, at, steps, console
        self._wanted = False
        self._until: int | None = None  # the last step of the trace under way

    def __enter__(self) -> "Profiler":
        try:
            self._before: Any = signal.signal(signal.SIGUSR1, self._note)
        except ValueError:  # not the main thread (a notebook's executor): then there is no handler to set
            self._before = None
        return self

    def _note(self, *_: Any) -> None:
        self._wanted = True

    def before(self, step: int) -> None:
        """Start a trace, if one is due."""
        if self._until is None and (step == self.at or self._wanted):
            self._wanted, self._until = False, step + self.steps - 1
            self._to = self.folder / str(step)
            jax.profiler.start_trace(str(self._to))

    def after(self, step: int, result: Any) -> None:
        """End the trace with its last step, once that is computed."""
        if self._until is not None and step >= self._until:
            jax.block_until_ready(result)
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self._until = None
        self.console.print(f"profile: {self._to} (tensorboard --logdir, or ui.perfetto.dev)")

    def __exit__(self, *_: Any) -> None:
        if self._until is not None:
            self._end()
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
