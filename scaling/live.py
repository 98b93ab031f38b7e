"""What a running sweep shows: on a terminal a table of units with the time left, elsewhere a line for each record."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .folder import PROGRESS

ROWS = 12  # of the table: those that run or failed last


class Unit(NamedTuple):
    """Trunks that train together, as they are shown."""

    name: str
    cells: tuple[str, ...]
    lacking: int  # points without a record when the sweep began
    flops: int  # that those take


class View:
    """`told` and `show` are called by the sweep; the rest is read from its folder."""

    def __init__(self, out: Path, units: Mapping[int, Unit], console: Console) -> None:
        self._out, self._units, self._console = out, units, console
        self._began, self._ended = time.monotonic(), set[int]()
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, line: str) -> None:
        left = self.left()
        self._console.print(line + (f"; {left / 60:.1f} min left" if left else ""), soft_wrap=True)

    def show(self, running: set[int], ended: Mapping[int, str], attempts: Mapping[int, int]) -> None:
        """ended: what became of units that run no more."""
        self._ended = set(ended)
        if self._live is None:
            return
        left = self.left()
        title = f"{len(ended)} of {len(self._units)} units" + (f", {left / 60:.1f} min left" if left else "")
        table = Table("unit", "points", "done", "state", title=title, title_justify="left", expand=False)
        for unit in [*self._order(running), *list(ended)[-ROWS:]][:ROWS]:
            share = self._done(unit) / max(self._units[unit].flops, 1)
            state = ended.get(unit) or ("runs" if share else "waits")
            state += f", attempt {attempts[unit] + 1}" if attempts.get(unit) and unit in running else ""
            table.add_row(self._units[unit].name, str(self._units[unit].lacking), f"{min(share, 1):.0%}", state)
        self._live.update(table)

    def left(self) -> float:
        """Seconds, by the FLOPs that were done so far; 0: nothing is known yet."""
        done, total = sum(map(self._done, self._units)), sum(unit.flops for unit in self._units.values())
        return (time.monotonic() - self._began) * max(total - done, 0) / done if done else 0.0

    def _order(self, running: set[int]) -> Sequence[int]:
        return sorted(running, key=lambda unit: (self._done(unit) == 0, unit))

    def _done(self, unit: int) -> int:
        if unit in self._ended:  # also one that diverged before its time
            return self._units[unit].flops
        path = self._out / PROGRESS / f"{unit}.json"
        return json.loads(path.read_text(encoding="utf-8"))["flops"] if path.exists() else 0
