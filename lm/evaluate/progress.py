"""How far an evaluation has come: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from lm.core.rows import weights_of
from lm.data.progress import ProgressBar, clock

EVERY = 5.0  # seconds between plain lines


def watched(batches: Iterable[dict[str, Any]], tokens: int) -> Iterator[dict[str, Any]]:
    """These batches, telling on standard error how many of the `tokens` to score are done, how fast and how long yet.

    Where the next batch is asked for, the last one has been started and those before it are done. What the first takes
    to compile counts for no speed."""
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with ProgressBar(Console(stderr=True), tokens, *columns, every=EVERY, first=EVERY, status=", compiling") as bar:
        done, under_way, begun = 0, 0, 0.0
        for batch in batches:
            yield batch
            now = time.monotonic()
            begun = begun or now
            done, under_way = done + under_way, sum(int((weights > 0).sum()) for weights in weights_of(batch).values())
            speed = done / (now - begun) if done else 0.0
            status = f", {speed:,.0f} tokens/s" if speed else ", compiling"
            left = f", {clock((tokens - done) / speed)} left" if speed else ""
            bar.tell(done, status, f"scored {done:,} of {tokens:,} tokens{status}{left}")
