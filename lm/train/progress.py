"""How far a run is, for a person: a bar on a terminal; elsewhere, in a log file, a line every few seconds."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from lm.data.progress import ProgressBar, clock
from lm.runs.metrics import Record

SECONDS = 10.0  # between lines


def console_of(chief: bool) -> Console:
    """Standard error, whose lines no width cuts; of several processes only the first one tells."""
    return Console(stderr=True, soft_wrap=True, quiet=not chief)


class RunProgress:
    """How far a run is, with loss, bits per byte, tokens/s, MFU and time left."""

    def __init__(self, steps: int, done: int, console: Console) -> None:
        columns = (
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = ProgressBar(
            console, steps, *columns, every=SECONDS, done=done, status="first step", transient=False
        )
        self.steps, self._begun = steps, False

    def __enter__(self) -> "RunProgress":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def wants(self) -> bool:
        """Whether to show a step that is not recorded; reading its metrics waits for the device."""
        return self._bar.due()

    def tell(self, step: int, record: Record) -> None:
        left = (self.steps - step) * record["seconds_per_step"]
        end = f", {clock(left)} left" if left and self._begun else ""  # the first step includes compilation
        text = status(record)
        self._begun |= self.wants()
        self._bar.tell(step, text, f"step {step} of {self.steps}: {text}{end}", always=step >= self.steps)

    def back(self, step: int) -> None:
        """A rewind."""
        self._bar.back(step)


def status(record: Record) -> str:
    """One record as a person reads it."""
    parts = [f"loss {record['loss']:.3f}" if "loss" in record else "nothing predicted"]
    if "bits_per_byte" in record:
        parts.append(f"{record['bits_per_byte']:.3f} bits/byte")
    parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
    parts.append(f"MFU {record['mfu']:.0%}")
    if record["waiting"] > 0.02:
        parts.append(f"waiting for data {record['waiting']:.0%}")
    return ", ".join(parts)
