"""What the routers of a run did, as pictures: load of each expert, dropped choices and entropies, layer by layer."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import TwoSlopeNorm

from lm.core.errors import UserError
from lm.runs.metrics import Record, read_metrics

LEGEND = 8  # layers, at most, of which each has a line in the legend


class RoutedLayer(NamedTuple):
    """A layer with experts: where its figures are found in a record."""

    place: str  # of its group in the model, as metrics name it
    repeat: int  # within that group
    name: str


def plot_routers(path: Path, png: Path, title: str) -> None:
    """Draws `router_load` of the last record, and `router_dropped`, `router_entropy` with `router_spread`, and the
    highest load of each layer against steps. Nothing where the run has no routers."""
    records = [r for r in read_metrics(path) if any(name.startswith("router_load/") for name in r)]
    if not records:
        return
    layers = layers_of(records[-1])
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    figure.suptitle(title)
    _plot_loads(figure, axes[0, 0], records[-1], layers)
    busiest = [[max(load) for load in of_layer("router_load", r, layers)] for r in records]
    _plot_lines(axes[0, 1], records, busiest, layers, "busiest expert's load over an even one")
    dropped = [of_layer("router_dropped", r, layers) for r in records]
    _plot_lines(axes[1, 0], records, dropped, layers, "share of choices that were dropped")
    axes[1, 0].set_ylim(0)
    entropy, spread = ([of_layer(f"router_{name}", r, layers) for r in records] for name in ("entropy", "spread"))
    _plot_lines(axes[1, 1], records, spread, layers, "entropy of probabilities, nats", "--")
    _plot_lines(axes[1, 1], records, entropy, layers, "entropy of probabilities, nats")
    axes[1, 1].set_title("a token's, on average (solid); of all tokens' mean (dashed)", fontsize="medium")
    experts = len(records[-1][f"router_load/{layers[-1].place}"][layers[-1].repeat])
    axes[1, 1].axhline(np.log(experts), color="tab:gray", lw=1, ls=":")
    axes[1, 1].annotate(f"log {experts}", (records[0]["step"], np.log(experts)), va="bottom", color="tab:gray")
    axes[1, 1].set_ylim(0, 1.1 * np.log(experts) or None)
    figure.savefig(png, dpi=110)
    plt.close(figure)


def layers_of(record: Record) -> list[RoutedLayer]:
    """The layers with experts that a record has figures of, as they follow each other in each tower."""
    found: list[tuple[Any, RoutedLayer]] = []
    for place, loads in ((n.removeprefix("router_load/"), v) for n, v in record.items() if n.startswith("router_load/")):
        parts = re.fullmatch(r"(.*?)(?:(\d+)\.(\d+)\.)?([^\d]*)", place)  # tower, group of layers, place within it
        assert parts is not None  # the first part matches anything
        tower, group, position, part = parts.groups()
        for repeat in range(len(loads)):
            order = (tower, int(group or 0), repeat, int(position or 0), part)
            found.append((order, RoutedLayer(place, repeat, tower.strip("."))))
    ordered = [layer for _, layer in sorted(found)]
    numbers: dict[str, int] = {}
    named = []
    for layer in ordered:
        numbers[layer.name] = numbers.get(layer.name, 0) + 1
        named.append(layer._replace(name=f"{layer.name} {numbers[layer.name]}".strip()))
    return named


def of_layer(name: str, record: Record, layers: Sequence[RoutedLayer]) -> list:
    """That figure of each layer."""
    return [record[f"{name}/{layer.place}"][layer.repeat] for layer in layers]


def router_loads(path: Path, last: int = 10, tower: str = "") -> list[list[float]]:
    """Of each layer with experts each expert's load over an even one, on average over so many of the last records of a
    metrics.jsonl. tower: of an encoder-decoder, "encoder" or "decoder".

    Raises `UserError` where there are none."""
    records = [r for r in read_metrics(path) if any(name.startswith("router_load/") for name in r)][-last:]
    layers = [layer for layer in layers_of(records[-1]) if layer.name.startswith(tower)] if records else []
    if not layers:
        raise UserError(f"{path} has no loads of experts{tower and f' of a tower {tower!r}'}: give that of a run with routers")
    by_layer = zip(*(of_layer("router_load", r, layers) for r in records), strict=True)
    return [np.mean(loads, axis=0).tolist() for loads in by_layer]


def _plot_loads(figure: Any, axes: Any, record: Record, layers: Sequence[RoutedLayer]) -> None:
    loads = of_layer("router_load", record, layers)
    table = np.full((len(loads), max(map(len, loads))), np.nan)
    for row, load in zip(table, loads, strict=True):
        row[: len(load)] = load
    highest = max(2.0, float(np.nanmax(table)))
    image = axes.imshow(table, aspect="auto", cmap="RdBu_r", norm=TwoSlopeNorm(1.0, 0.0, highest), interpolation="none")
    figure.colorbar(image, ax=axes, label="load over an even one")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="expert", ylabel="layer with experts", title=f"load at step {record['step']}")
    if len(layers) <= 3 * LEGEND:
        axes.set_yticks(range(len(layers)), [layer.name for layer in layers])


def _plot_lines(
    axes: Any, records: Sequence[Record], values: Sequence[list], layers: Sequence[RoutedLayer], label: str, style: str = "-"
) -> None:
    """Against steps, a line for each layer, the first one dark; values: of each record, of each layer."""
    steps = [r["step"] for r in records]
    for i, layer in enumerate(layers):
        shown = style == "-" and (len(layers) <= LEGEND or i in (0, len(layers) - 1))
        color = plt.get_cmap("viridis")(0.9 * i / max(len(layers) - 1, 1))
        line = [of_record[i] for of_record in values]
        axes.plot(steps, line, style, color=color, lw=1, label=f"layer {layer.name}" if shown else None)
    axes.grid(alpha=0.3)
    axes.set(xlabel="step", ylabel=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
