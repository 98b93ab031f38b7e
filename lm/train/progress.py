"""How far a run is, for a person: a bar on a terminal; elsewhere, in a log file, a line every few seconds."""

import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Record = dict[str, Any]
SECONDS = 10.0  # between lines


def console_of(chief: bool) -> Console:
    """Standard error, whose lines no width cuts; of several processes only the first one tells."""
    return Console(stderr=True, soft_wrap=True, quiet=not chief)


class Progress(Protocol):
    def __enter__(self) -> "Progress": ...
    def __exit__(self, *_: Any) -> None: ...
    def wants(self) -> bool:
        """Whether a step besides those that are recorded should be told: looking at one waits for the device."""

    def tell(self, step: int, record: Record) -> None: ...
    def back(self, step: int) -> None:
        """A rewind."""


def progress_of(steps: int, done: int, console: Console) -> Progress:
    return Bar(steps, done, console) if console.is_terminal else Lines(steps, console)


class Bar:
    """With loss, bits per byte, tokens/s, MFU and time left."""

    def __init__(self, steps: int, done: int, console: Console) -> None:
        self._bar = RichProgress(
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, status="first step")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def wants(self) -> bool:
        return False

    def tell(self, step: int, record: Record) -> None:
        self._bar.update(self._task, completed=step, status=status(record))

    def back(self, step: int) -> None:
        self._bar.update(self._task, completed=step)


class Lines:
    """Plain lines, the first one soon after the first step."""

    def __init__(self, steps: int, console: Console) -> None:
        self.steps, self._console, self._due, self._told = steps, console, 0.0, False

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def wants(self) -> bool:
        return time.monotonic() >= self._due

    def tell(self, step: int, record: Record) -> None:
        if not self.wants() and step < self.steps:
            return
        self._due = time.monotonic() + SECONDS
        left = (self.steps - step) * record["seconds_per_step"]
        end = f", {_duration(left)} left" if left and self._told else ""  # the first step's time tells little
        self._told = True
        self._console.print(f"step {step} of {self.steps}: {status(record)}{end}", soft_wrap=True, highlight=False)

    def back(self, step: int) -> None:
        self._due = 0.0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def status(record: Record) -> str:
    """One record as a person reads it."""
    parts = [f"loss {record['loss']:.3f}" if "loss" in record else "no token predicted"]
    if "bits_per_byte" in record:
        parts.append(f"{record['bits_per_byte']:.3f} bits/byte")
    parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
    parts.append(f"MFU {record['mfu']:.0%}")
    if record["waiting"] > 0.02:
        parts.append(f"waiting for data {record['waiting']:.0%}")
    return ", ".join(parts)
