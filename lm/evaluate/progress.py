"""How far an evaluation has come: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 5.0  # seconds between plain lines


def watched(batches: Iterable[dict[str, Any]], tokens: int) -> Iterator[dict[str, Any]]:
    """These batches, telling on standard error how many of the `tokens` to score are done, how fast and how long yet.

    Where the next batch is asked for, the last one has been started and those before it are done. What the first takes
    to compile counts for no speed."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=tokens, speed=", compiling")
        done, under_way, begun, told = 0, 0, 0.0, time.monotonic()
        for batch in batches:
            yield batch
            now = time.monotonic()
            begun = begun or now
            done, under_way = done + under_way, int((batch["weights"] > 0).sum())
            speed = done / (now - begun) if done else 0.0
            bar.update(task, completed=done, speed=f", {speed:,.0f} tokens/s" if speed else "")
            if not console.is_terminal and now - told > EVERY:
                left = timedelta(seconds=round((tokens - done) / speed)) if speed else None
                more = f", {speed:,.0f} tokens/s, {left} left" if speed else ""
                print(f"scored {done:,} of {tokens:,} tokens{more or ', compiling'}", file=sys.stderr, flush=True)
                told = now
