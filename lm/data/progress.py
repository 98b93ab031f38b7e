"""What reading a corpus tells, on standard error."""

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

SILENT = 2.0  # seconds that need no word
EVERY = 10.0  # seconds between two lines where there is no terminal to draw on


def tell(line: str) -> None:
    """A line about the data, of any length."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """How far a long task is, once it has taken two seconds: a bar on a terminal, else a line every ten seconds.

    `state()` -> (share of the whole that is done, bytes done); it is asked from another thread."""

    def __init__(self, what: str, state: Callable[[], tuple[float, float]]) -> None:
        self.what, self.state = what, state
        self._ended = threading.Event()

    def __enter__(self) -> "Progress":
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def text(self) -> str:
        share, size = self.state()
        seconds = time.monotonic() - self._begun
        left = f"{_clock(seconds * (1 - share) / share)} left" if 0 < share <= 1 else "a while left"
        return f"{self.what}: {share:.0%}, {size / 1e6:,.0f} MB, {size / 1e6 / seconds:,.1f} MB/s, {left}"

    def _watch(self) -> None:
        if self._ended.wait(SILENT):
            return
        console = Console(stderr=True)
        if not console.is_terminal:  # a notebook neither: there rich asks for another package to draw with
            while not self._ended.wait(EVERY):
                tell(self.text())
            return
        with Bar(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
            task = bar.add_task(self.text(), total=1.0)
            while not self._ended.wait(0.5):
                bar.update(task, completed=self.state()[0], description=self.text())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
