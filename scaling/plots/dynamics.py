"""Pictures of what a run has learned by heart, and of what it predicts badly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import ACCENT, INK, PALE, SECOND, colours, figure_of, panels

Record = dict[str, Any]


def dynamics(records: Sequence[Record]) -> Figure:
    """Of the records that `python -m scaling.dynamics` writes, a checkpoint each; the last is shown in most detail."""
    figure = figure_of("what was learned", 15, 8)
    memorised, duplicates, matched, position, frequency, losses = panels(figure, 3, 2)
    last = records[-1]
    _by_prefix(memorised, records)
    for name, colour in (("training", ACCENT), ("held-out", SECOND)):
        rates = last["by_duplicates"][name]
        x = [max(int(n), 0.5) for n in rates]
        share, error = (np.array([100 * r[key] for r in rates.values()]) for key in ("share", "error"))
        duplicates.errorbar(x, share, error, fmt="-o", ms=4, color=colour, label=f"{name} windows")
    duplicates.set_xscale("log", base=2)
    _labels(duplicates, "copies of a window in the training text (left end: none)", "reproduced, %", "by duplicates")
    for n, colour in zip(last["exact_match"], colours(len(last["exact_match"])), strict=True):
        points = sorted((r["loss"]["held-out"], 100 * r["exact_match"][n]) for r in records)
        matched.plot(*zip(*points, strict=True), "-o", ms=4, color=colour, label=f"{n} tokens")
    matched.invert_xaxis()
    _labels(matched, "held-out loss, nats per token", "windows without a fault, %", "emergence: thresholds on the loss")
    for record, colour in zip(records, colours(len(records)), strict=True):
        nats = np.array([np.nan if v is None else v for v in record["by_position"]])
        position.plot(np.arange(1, len(nats) + 1), nats, color=colour, lw=1, label=_name(record))
        bins = record["by_frequency"]
        at = [max(int(n), 0.5) for n in bins]
        frequency.plot(at, [b["loss"] for b in bins.values()], "-o", ms=3, color=colour, label=_name(record))
    for axes in (memorised, duplicates, matched):
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    position.set_xscale("log", base=2)
    _labels(position, "position in the row", "nats per token", "loss by position")
    frequency.set_xscale("log", base=2)
    _labels(frequency, "times in the training text (left end: none)", "nats per token", "loss by a token's frequency")
    steps = [r["step"] for r in records]
    for name, colour in (("training", ACCENT), ("held-out", SECOND)):
        losses.plot(steps, [r["loss"][name] for r in records], "o", ms=4, color=colour, label=f"{name} rows")
    _labels(losses, "step", "nats per token", "loss on rows read, and on rows held out")
    return figure


def _by_prefix(axes: Axes, records: Sequence[Record]) -> None:
    for record, colour in zip(records, colours(len(records)), strict=True):
        for name, style in (("training", "-o"), ("held-out", ":s")):
            rates = record["memorised"][name]
            x = [int(n) for n in rates]
            share, error = (np.array([100 * r[key] for r in rates.values()]) for key in ("share", "error"))
            axes.errorbar(x, share, error, fmt=style, ms=3, color=colour, label=f"{_name(record)}, {name}")
    axes.set_xscale("log", base=2)
    _labels(axes, "tokens given", f"next {records[-1]['continuation']} reproduced, %", "memorisation by prefix")


def _name(record: Record) -> str:
    return f"{record['run'].rstrip('/').rpartition('/')[2]} {record['step']}"


def _labels(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.legend(fontsize=6, labelcolor=INK, edgecolor=PALE)
