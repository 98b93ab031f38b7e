"""Pictures of metrics that leap, beside what falls evenly."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..dynamics.emergence import Emergence, frontier, metric_of
from ..records import Runs
from .style import ACCENT, INK, PALE, colours, figure_of, panels, plain_ticks


def emergence(runs: Runs, names: Sequence[str], found: Mapping[str, Emergence], level: float) -> Figure:
    """Metrics of runs against compute and against the loss, with the level that was asked for and where each passes it;
    the loss against compute; and each metric on a logarithmic scale, on which a power of what is smooth is smooth."""
    figure = figure_of("emergence: thresholds, and what is smooth beneath them", 15)
    by_compute, smooth, by_loss, logarithmic = panels(figure, 4)
    flops, loss = runs["flops"], runs["loss"]
    best, order = frontier(flops, loss), np.argsort(-loss)
    for name, colour in zip(names, colours(len(names)), strict=True):
        values = metric_of(runs, name)
        by_compute.plot(flops, values, "o", ms=3, alpha=0.35, color=colour)
        by_compute.plot(flops[best], values[best], "-o", ms=4, color=colour, label=name.replace("_", " "))
        seen = order[values[order] > 0]
        by_loss.plot(loss[order], values[order], "-o", ms=3, color=colour)
        logarithmic.plot(loss[seen], values[seen], "-o", ms=3, color=colour)
        for axes, at in ((by_compute, found[name].flops[0]), (by_loss, found[name].loss[0])):
            if np.isfinite(at):
                axes.plot(at, level, "*", ms=12, color=colour, mec="white", zorder=5)
    smooth.plot(flops, loss, "o", ms=3, alpha=0.35, color=PALE)
    smooth.plot(flops[best], loss[best], "-o", ms=4, color=INK)
    for axes in (by_compute, by_loss, logarithmic):
        axes.axhline(level, color=ACCENT, lw=0.8, ls="--")
    for axes in (by_compute, smooth):
        axes.set_xscale("log")
        plain_ticks(axes, 5)
    for axes in (by_loss, logarithmic):
        axes.invert_xaxis()
    logarithmic.set_yscale("log")
    by_compute.legend(fontsize=7, labelcolor=INK, edgecolor=PALE)
    _labels(by_compute, "training FLOPs", "share", f"metrics (star: passes {level:g})")
    _labels(smooth, "training FLOPs", "held-out loss, nats", "the loss beneath them")
    _labels(by_loss, "held-out loss, nats", "share", "metrics against the loss")
    _labels(logarithmic, "held-out loss, nats", "share", "the same, on a logarithmic scale")
    return figure


def _labels(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
