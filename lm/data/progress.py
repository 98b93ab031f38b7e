"""How far a long task is, for a person: a bar on a terminal; elsewhere, in a log file, a line every few seconds."""

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar

SILENT = 2.0  # seconds that need no word
EVERY = 10.0  # seconds between two lines where there is no terminal to draw on


def tell(line: str) -> None:
    """A line about the data, of any length."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


class ProgressBar:
    """A bar of these columns, whose "{task.fields[status]}" is the latest text; or lines, the first `first` seconds
    after the beginning, the next `every` seconds later.

    Whoever has a bar calls `tell` now and then, as often as it likes."""

    def __init__(
        self,
        console: Console,
        total: float,
        *columns: ProgressColumn,
        every: float,
        first: float = 0.0,
        done: float = 0.0,
        status: str = "",
        transient: bool = True,
    ) -> None:
        """`done`, `status`: what the bar shows at first; `transient`: it goes away when it is done."""
        self.console, self.every, self._due = console, every, time.monotonic() + first
        # A notebook is no terminal either: there rich asks for another package to draw with.
        self.drawn = console.is_terminal
        self._bar = Bar(*columns, console=console, refresh_per_second=2, transient=transient, disable=not self.drawn)
        self._task = self._bar.add_task("", total=total, completed=int(done), status=status)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def due(self) -> bool:
        """Whether a line would be printed now."""
        return not self.drawn and time.monotonic() >= self._due

    def tell(self, done: float, status: str, line: str, always: bool = False) -> None:
        """So much of the total is done: `status` for the bar, or else `line`, where it is due or is to be printed
        `always`."""
        if self.drawn:
            self._bar.update(self._task, completed=done, status=status)
        elif always or self.due():
            self._due = time.monotonic() + self.every
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def back(self, done: float) -> None:
        """Less is done than was said; the next line is due at once."""
        self._due = 0.0
        self._bar.update(self._task, completed=done)


class Progress:
    """How far a long task is that tells nothing itself: a thread asks, once it has taken two seconds.

    `state()` -> (share of the whole that is done, bytes done)."""

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

    def _watch(self) -> None:
        if self._ended.wait(SILENT):
            return
        columns = TextColumn("{task.fields[status]}"), BarColumn()
        with ProgressBar(Console(stderr=True), 1.0, *columns, every=EVERY, first=EVERY) as bar:
            while not self._ended.wait(min(0.5, EVERY)):
                if bar.drawn or bar.due():
                    share, size = self.state()
                    text = self._text(share, size)
                    bar.tell(share, text, text)

    def _text(self, share: float, size: float) -> str:
        seconds = time.monotonic() - self._begun
        left = f"{clock(seconds * (1 - share) / share)} left" if 0 < share <= 1 else "a while left"
        return f"{self.what}: {share:.0%}, {size / 1e6:,.0f} MB, {size / 1e6 / seconds:,.1f} MB/s, {left}"


def clock(seconds: float) -> str:
    """Hours, if there are any, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
