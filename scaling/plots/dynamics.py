"""Pictures of what a run has learned by heart, and of what it predicts badly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..laws import Array
from .style import ACCENT, INK, PALE, SECOND, colours, figure_of, panels, plain_ticks

Record = dict[str, Any]
MOST = 5  # checkpoints of a run that are shown line by line
PARTS = (("training", ACCENT), ("held-out", SECOND))


def dynamics(records: Sequence[Record]) -> Figure:
    """Of the records that `python -m scaling.dynamics` writes, a checkpoint each: of one run some that are evenly
    spread, of several runs the last of each. What is by duplicates is of the very last."""
    figure = figure_of("what was learned", 19, 8)
    memorised, duplicates, losses, noise, position, frequency, matched, root = panels(figure, 4, 2)
    shown = chosen(records)
    _by_prefix(memorised, shown)
    _by_duplicates(duplicates, shown[-1])
    _losses(losses, records)
    _noise(noise, records)
    for record, colour in zip(shown, colours(len(shown)), strict=True):
        nats = np.array([np.nan if v is None else v for v in record["by_position"]])
        position.plot(*by_octaves(nats), "-o", ms=3, lw=1, color=colour, label=_name(record))
        bins = record["by_frequency"]
        at = np.array([_place(n) for n in bins])
        nats, share = (np.array([b[key] for b in bins.values()]) for key in ("loss", "share"))
        frequency.plot(at, nats, color=colour, lw=1, label=_name(record))
        frequency.scatter(at, nats, s=4 + 200 * share, color=colour, lw=0)
    _binned(frequency, [n for record in shown for n in record["by_frequency"]])
    position.set_xscale("log", base=2)
    _labels(position, "position in the row", "nats per token", "loss by position (means over half octaves)")
    _labels(frequency, "times in the training text", "nats per token", "loss by a token's frequency (area: share)")
    _matches(matched, root, records)
    return figure


def chosen(records: Sequence[Record]) -> list[Record]:
    """Those that are drawn line by line, the last among them."""
    last = {record["run"]: record for record in records}
    if len(last) > 1:
        return list(last.values())
    return [records[i] for i in np.unique(np.linspace(0, len(records) - 1, MOST).round().astype(int))]


def by_octaves(values: Array) -> tuple[Array, Array]:
    """(positions, means) of values at 1, 2, ... over bins that are half an octave wide: single positions scatter."""
    at = np.arange(1, len(values) + 1)
    bins = np.floor(2 * np.log2(at)).astype(int)
    there = np.isfinite(values)
    kept = np.unique(bins[there])
    means = [[np.exp(np.log(at[m]).mean()), values[m].mean()] for m in (there & (bins == b) for b in kept)]
    x, mean = np.reshape(means, (-1, 2)).T
    return x, mean


def _by_prefix(axes: Axes, shown: Sequence[Record]) -> None:
    for record, colour in zip(shown, colours(len(shown)), strict=True):
        for name, style in (("training", "-o"), ("held-out", ":s")):
            rates = record["memorised"][name]
            share, error = (np.array([100 * r[key] for r in rates.values()]) for key in ("share", "error"))
            label = f"{_name(record)}, {name}"
            if name == "training":
                axes.errorbar([int(n) for n in rates], share, error, fmt=style, ms=3, color=colour, label=label)
            elif record is shown[-1]:  # one is enough to tell how many are easy, and more are hard to tell apart
                axes.plot([int(n) for n in rates], share, style, ms=3, color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(n) for n in shown[-1]["memorised"]["training"]], list(shown[-1]["memorised"]["training"]))
    axes.xaxis.set_minor_locator(NullLocator())
    _from_nothing(axes)
    _labels(axes, "tokens given", f"next {shown[-1]['continuation']} reproduced, %", "memorisation by prefix")


def _by_duplicates(axes: Axes, record: Record) -> None:
    for name, colour in PARTS:
        rates = record["by_duplicates"][name]
        share, error = (np.array([100 * r[key] for r in rates.values()]) for key in ("share", "error"))
        at = [_place(n) for n in rates]
        axes.errorbar(at, share, error, fmt="-o", ms=4, color=colour, label=f"{name} windows")
        for x, y, rate in zip(at, share, rates.values(), strict=True):
            axes.annotate(f"{rate['windows']}", (x, y), (3, 4), textcoords="offset points", fontsize=6, color=colour)
    _binned(axes, [n for name, _ in PARTS for n in record["by_duplicates"][name]])
    _from_nothing(axes)
    _labels(axes, "copies of a window in the training text", "reproduced, %", f"by duplicates, {_name(record)}")


def _losses(axes: Axes, records: Sequence[Record]) -> None:
    runs = list(dict.fromkeys(record["run"] for record in records))
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        of = [record for record in records if record["run"] == run]
        for name, style in (("training", "-o"), ("held-out", ":s")):
            tokens, nats = [r["tokens"] for r in of], [r["loss"][name] for r in of]
            axes.plot(tokens, nats, style, ms=4, color=colour, label=f"{_last(run)}, {name} rows")
    _labels(axes, "tokens read", "nats per token", "loss on rows read, and on rows held out")


def _noise(axes: Axes, records: Sequence[Record]) -> None:
    """Where it was measured, and is known."""
    of = [r for r in records if (r.get("noise_scale") or {}).get("tokens") is not None]
    if not of:
        axes.set_visible(False)
        return
    runs = list(dict.fromkeys(r["run"] for r in of))
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        mine = [r for r in of if r["run"] == run]
        scale, error = ([r["noise_scale"][key] for r in mine] for key in ("tokens", "error"))
        losses = [r["loss"]["held-out"] for r in mine]
        axes.errorbar(losses, scale, error, fmt="-o", ms=4, color=colour, label=_last(run))
    axes.invert_xaxis()
    axes.set_yscale("log")
    plain_ticks(axes)
    _labels(axes, "held-out loss, nats per token", "tokens", "gradient noise scale")


def _matches(matched: Axes, root: Axes, records: Sequence[Record]) -> None:
    """Thresholds, and what is smooth beneath them: were the tokens of a window right independently, the n-th root of
    each would be the accuracy of one."""
    lengths = list(records[-1]["exact_match"])
    for n, colour in zip(lengths, colours(len(lengths)), strict=True):
        points = sorted((r["loss"]["held-out"], r["exact_match"][n]) for r in records)
        nats, share = np.array(points).T
        label = f"{n} token{'s' if int(n) > 1 else ''}"
        matched.plot(nats, 100 * share, "-o", ms=3, color=colour, label=label)
        root.plot(nats[share > 0], 100 * share[share > 0] ** (1 / int(n)), "-o", ms=3, color=colour, label=label)
    for axes in (matched, root):
        axes.invert_xaxis()
    _from_nothing(matched)
    _labels(matched, "held-out loss, nats per token", "windows without a fault, %", "emergence: thresholds on the loss")
    _labels(root, "held-out loss, nats per token", "n-th root, %", "the same by token")


def _place(least: Any) -> float:
    """Where a bin stands by the least of it, which may be none."""
    return max(int(least), 0.5)


def _binned(axes: Axes, least: Sequence[Any]) -> None:
    axes.set_xscale("log", base=2)
    ticks = sorted({int(n) for n in least})
    ticks = [n for i, n in enumerate(ticks) if n == 0 or i % (1 + len(ticks) // 9) == 0]
    axes.set_xticks([_place(n) for n in ticks], list(map(str, ticks)))
    axes.xaxis.set_minor_locator(NullLocator())


def _from_nothing(axes: Axes) -> None:
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))


def _name(record: Record) -> str:
    return f"{_last(record['run'])} {record['step']}"


def _last(run: str) -> str:
    return run.rstrip("/").rpartition("/")[2]


def _labels(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.legend(fontsize=6, labelcolor=INK, edgecolor=PALE)
