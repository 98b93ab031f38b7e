"""Pictures of plans: which runs, and how well they would answer."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..design.precision import DECISIONS, Question
from ..design.propose import Outlook
from ..laws import FLOPS_PER_PARAM_TOKEN, Array, Frontier

INK = "#333333"
COLOURS = ("#d1495b", "#00798c", "#edae49")
MARKERS = ("o", "s", "^")


def plan(
    law: Frontier,
    question: Question,
    runs: Mapping[str, tuple[Array, Array]],
    outlooks: Mapping[str, Outlook],
    level: float,
) -> Figure:
    """Left: N and D of the runs of each design, with the law's frontier and lines of equal compute. Right: the interval
    of each decision by each design, of sizes and tokens as a ratio to what the law says."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    plane, *small = figure.subplot_mosaic(
        [["plane", *DECISIONS[:2]], ["plane", *DECISIONS[2:]]], width_ratios=[2, 1, 1]
    ).values()
    _plane(plane, law, runs)
    truth = law.decisions(question.flops)
    for axes, decision in zip(small, DECISIONS, strict=True):
        _answers(axes, decision, float(truth[decision]), outlooks)
    figure.suptitle(f"{level:g} % intervals at {question.flops:.3g} FLOPs that these runs would give", fontsize=12)
    return figure


def _plane(axes: Axes, law: Frontier, runs: Mapping[str, tuple[Array, Array]]) -> None:
    for (name, (n, d)), colour, marker in zip(runs.items(), COLOURS, MARKERS, strict=False):
        axes.scatter(n, d, s=26, marker=marker, facecolor="none", edgecolor=colour, label=name, zorder=3)
    n, d = (np.concatenate(values) for values in zip(*runs.values(), strict=True))
    compute = FLOPS_PER_PARAM_TOKEN * n * d
    along = np.geomspace(compute.min() / 4, compute.max() * 4, 100)
    axes.plot(*law.optimal(along), color=INK, lw=1.2, label="frontier of the law")
    sizes = np.geomspace(n.min() / 2, n.max() * 2, 50)
    for power in range(int(np.floor(np.log10(compute.min()))), int(np.ceil(np.log10(compute.max()))) + 1):
        axes.plot(sizes, 10.0**power / FLOPS_PER_PARAM_TOKEN / sizes, color=INK, lw=0.4, ls=":")
        axes.annotate(f"1e{power}", (sizes[-1], 10.0**power / FLOPS_PER_PARAM_TOKEN / sizes[-1]), fontsize=7, color=INK)
    axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="training tokens D")
    axes.set(xlim=(sizes[0], sizes[-1] * 1.6), ylim=(d.min() / 2, d.max() * 2))
    axes.set_title("runs (dotted: equal compute 6 N D)", fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False)


def _answers(axes: Axes, decision: str, truth: float, outlooks: Mapping[str, Outlook]) -> None:
    sizes = decision in ("N_opt", "D_opt")  # which are told by a factor
    unit = truth if sizes else 1.0
    for y, (outlook, colour) in enumerate(zip(outlooks.values(), COLOURS, strict=False)):
        answer = outlook.answers[decision]
        axes.plot([answer.low / unit, answer.high / unit], [y, y], color=colour, lw=5, solid_capstyle="butt")
    axes.axvline(truth / unit, color=INK, lw=0.8, ls=":")
    axes.set_yticks(range(len(outlooks)), list(outlooks), fontsize=8)
    axes.set_ylim(len(outlooks) - 0.4, -0.6)  # the first on top
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(f"{decision} / {truth:.3g}" if sizes else decision, fontsize=10)
