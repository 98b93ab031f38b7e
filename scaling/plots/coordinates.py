"""Pictures of coordinate checks: how much activations change in training, by the size of the model."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..laws import Array
from .style import INK, colours, figure_of, panels


def coordinates(sizes: Sequence[float], found: Mapping[str, Mapping[str, Array]], what: str) -> Figure:
    """`found`: by parametrization and activation, the change since step 0, [sizes, steps]. A row a parametrization, a
    column an activation, a line a step."""
    names = list(next(iter(found.values())))
    figure = figure_of(f"how much activations change, by {what}", 2.7 * len(names), 0.6 + 2.5 * len(found))
    axes = panels(figure, len(names), len(found), sharex=True, sharey="col")
    for i, (kind, changes) in enumerate(found.items()):
        row = axes[i * len(names) : (i + 1) * len(names)]
        for ax, (name, change) in zip(row, changes.items(), strict=True):
            for step, (line, colour) in enumerate(zip(change.T, colours(change.shape[1]), strict=True), 1):
                ax.plot(sizes, line, "-o", ms=3, color=colour, label=f"step {step}")
            power = np.polyfit(np.log(sizes), np.log(change[:, -1]), 1)[0]
            ax.set_title(f"{name}: {what}^{power:+.2f}", fontsize=9, color=INK)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
        row[0].set_ylabel(f"{kind}\nrms change since step 0", fontsize=8)
    axes[0].legend(fontsize=7)
    for ax in axes[-len(names) :]:
        ax.set_xlabel(what, fontsize=8)
    return figure
