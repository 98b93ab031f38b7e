"""Pictures of how far a law can be trusted: its errors, its profiles, what it says of runs it has not seen."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ..engine import Estimate, Profile, errors
from ..laws import FLOPS_PER_PARAM_TOKEN, Array, Law
from ..records import Runs
from .style import ACCENT, INK, PALE, SECOND, colours, figure_of, panels, plain_ticks, reach


def residuals(runs: Runs, estimate: Estimate[Law], *, title: str = "Errors of the fit") -> Figure:
    """What each run gave over what the law says, against every column that the law reads, and how many are how far
    off. Shaded: the noise of a run. A trend means that the law lacks something; single points far out, wild runs."""
    law = estimate.law
    relative = law.residual == "log"
    scale, unit = (100.0, "%") if relative else (1.0, "units of the target")
    off = -scale * errors(law, [runs[name] for name in law.reads], runs[law.target])
    figure = figure_of(title, width=3.4 * (len(law.reads) + 1))
    each = panels(figure, len(law.reads) + 1, sharey=True)
    for axes, name in zip(each, law.reads, strict=False):
        axes.scatter(runs[name], off, s=10, color=INK, alpha=0.6)
        axes.set(xlabel=name.replace("_", " "))
        if (runs[name] > 0).all() and runs[name].max() > 10 * runs[name].min():
            axes.set_xscale("log")
            plain_ticks(axes)
    each[0].set_ylabel(f"run over law ({unit})")
    each[-1].hist(off, bins=min(40, 5 + len(off) // 5), orientation="horizontal", color=PALE)
    each[-1].set(xlabel="runs")
    for axes in each:
        axes.axhline(0, color=ACCENT, lw=1)
        axes.axhspan(-scale * estimate.noise, scale * estimate.noise, color=ACCENT, alpha=0.12, lw=0)
    return figure


def profiles(found: Mapping[str, Profile], *, title: str = "Profiles", level: float = 90) -> Figure:
    """How the objective rises when a constant or a decision is held away from its best value and all else is fitted
    anew, in units of the rise that rejects a value: it lies where the curve is below the line. A flat one is hardly
    determined."""
    rows = -(-len(found) // 4)
    figure = figure_of(title, width=12, height=0.6 + 2.2 * rows)
    each = panels(figure, min(len(found), 4), rows, squeeze=False)
    for axes, (name, profile) in zip(each, found.items(), strict=False):
        _profile(axes, name, profile)
    for axes in each[len(found) :]:
        axes.set_visible(False)
    figure.supylabel(f"rise of the objective (1: {level:g} % interval)", fontsize=9)
    return figure


def _profile(axes: Axes, name: str, profile: Profile) -> None:
    good = np.isfinite(profile.values) & np.isfinite(profile.rises)
    values, rises = profile.values[good], profile.rises[good]
    near = values[(rises < 6) | (rises == rises.min(initial=np.inf))]
    if len(near) < 2 or near[0] == near[-1]:
        axes.set_title(f"{name}: {profile.why[0] or 'not determined'}", fontsize=9)
        return
    axes.plot(values, rises, color=INK, lw=1.3, marker=".", ms=4)
    axes.axhline(1, color=ACCENT, lw=0.9, ls="--")
    low, high = profile.low, profile.high
    axes.axvspan(
        low if np.isfinite(low) else near[0], high if np.isfinite(high) else near[-1], color=ACCENT, alpha=0.12
    )
    if values[0] > 0 and near[-1] > 5 * near[0]:
        axes.set_xscale("log")
    axes.set(ylim=(-0.1, 4), xlim=(near[0], near[-1]))
    plain_ticks(axes, count=4)
    shown = [f"{end:.4g}" if np.isfinite(end) else "?" for end in (low, high)]
    axes.set_title(f"{name}: {shown[0]} ... {shown[1]}", fontsize=9)


def fan(
    runs: Runs,
    estimate: Estimate[Any],
    *,
    title: str = "What more compute would give",
    unit: str = "nats/token",
    level: float = 90,
    extrapolate: ArrayLike = (),
) -> Figure:
    """Of a law with a frontier, the loss along it, as far as `extrapolate` goes: dark, how well the fit knows it; pale,
    where one more run would end; and the runs' own, at 6 N D FLOPs."""
    N, loss = runs["params"], runs["loss"]
    compute = FLOPS_PER_PARAM_TOKEN * N * runs["tokens"]
    C = reach(compute, extrapolate)
    said = estimate.predict(*estimate.law.optimal(C), level=level)
    figure = figure_of(title, width=7.5)
    (axes,) = panels(figure, 1)
    shown = (said.value.max() * 1.3 > loss) & (compute > 0)
    axes.scatter(compute[shown], loss[shown], s=9, color=PALE, alpha=0.7, label="runs")
    axes.axvspan(compute.max(), C[-1], color=SECOND, alpha=0.05, lw=0, label="beyond all runs")
    axes.fill_between(C, said.run_low, said.run_high, color=ACCENT, alpha=0.12, lw=0, label=f"one run, {level:g} %")
    axes.fill_between(C, said.low, said.high, color=ACCENT, alpha=0.3, lw=0, label=f"the law, {level:g} %")
    axes.plot(C, said.value, color=ACCENT, lw=1.6, label="at the best size")
    axes.set(xscale="log", yscale="log", xlabel="compute C = 6 N D (FLOPs)", ylabel=f"loss ({unit})")
    axes.set_xlim(C[0], C[-1])
    plain_ticks(axes)
    axes.legend(fontsize=8)
    return figure


def held_out(
    target: Array,
    estimate: Estimate[Law],
    inputs: list[Array],
    held: NDArray[np.bool_],
    *,
    title: str = "Held-out runs",
    unit: str = "nats/token",
    level: float = 90,
) -> Figure:
    """What runs gave against what a law says that was fitted without the `held` ones [runs], which have the interval of
    one run; it should cross the diagonal."""
    said = estimate.predict(*inputs, level=level)
    figure = figure_of(title, width=11)
    whole, near = panels(figure, 2)
    for axes, some in ((whole, np.ones(len(target), bool)), (near, held)):
        seen = some & ~held
        axes.scatter(said.value[seen], target[seen], s=9, color=PALE, alpha=0.7, label=f"{seen.sum()} runs, fitted")
        x, bars = said.value[held], [said.value[held] - said.run_low[held], said.run_high[held] - said.value[held]]
        axes.errorbar(x, target[held], xerr=bars, fmt="none", ecolor=SECOND, lw=0.8, alpha=0.6)
        axes.scatter(x, target[held], s=16, color=SECOND, zorder=3, label=f"{held.sum()} runs, held out")
        ends = np.array([target[some].min(), target[some].max()])
        axes.plot(ends, ends, color=ACCENT, lw=1, ls="--")
        axes.set(xscale="log", yscale="log", xlabel=f"predicted ({unit})", ylabel=f"measured ({unit})")
        plain_ticks(axes)
    whole.set_title("all runs", fontsize=10)
    near.set_title(f"held out, with the {level:g} % interval of one run", fontsize=10)
    whole.legend(fontsize=8)
    return figure


CELLS = 6  # of the most runs, that a map of rates and batches shows
EXCESS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # percent over the least loss, where its lines are


def rates(runs: Runs, *, title: str = "Learning rates and batches") -> Figure | None:
    """Loss over learning rate and batch size, a panel for each pair of params and tokens, as percent over the least of
    the panel (the star). None where no pair has a grid of both."""
    pairs = np.stack([runs["params"], runs["tokens"]], axis=1)
    kinds, which, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    grids = [i for i in np.argsort(-counts, kind="stable")[:CELLS] if _is_grid(runs, which == i)]
    if not grids:
        return None
    columns = min(3, len(grids))
    figure = figure_of(title, width=4 * columns, height=0.6 + 3.2 * -(-len(grids) // columns))
    each = panels(figure, columns, -(-len(grids) // columns), squeeze=False)
    shades = colours(len(EXCESS) + 1)
    for axes, i in zip(each, sorted(grids), strict=False):
        rate, batch, loss = (runs[name][which == i] for name in ("learning_rate", "batch_size", "loss"))
        over = 100 * (loss / loss.min() - 1)
        shade = shades[np.digitize(over, EXCESS)]
        axes.tricontour(np.log(rate), np.log(batch), over, levels=EXCESS, colors=PALE, linewidths=0.7)
        axes.scatter(np.log(rate), np.log(batch), c=shade, s=14)
        best = int(np.argmin(loss))
        axes.scatter(np.log(rate[best]), np.log(batch[best]), s=130, marker="*", color=ACCENT, edgecolor=INK, zorder=3)
        for axis, values in ((axes.xaxis, np.unique(rate)), (axes.yaxis, np.unique(batch))):
            some = values[:: -(-len(values) // 5)]
            axis.set_ticks(np.log(some), [f"{v:.2g}" if v < 1 else f"{v:.0f}" for v in some])
            edges = np.log([values[0], values[-1]])
            low, high = edges + 0.05 * np.ptp(edges) * np.array([-1, 1])
            axis.set_view_interval(low, high, ignore=True)
        n, d = kinds[i]
        axes.set_title(f"N = {n:.3g}, D = {d:.3g}", fontsize=9)
        axes.set(xlabel="learning rate", ylabel="batch size")
    for axes in each[len(grids) :]:
        axes.set_visible(False)
    return figure


def _is_grid(runs: Runs, some: NDArray[np.bool_]) -> bool:
    return all(len(np.unique(runs[name][some])) >= 3 for name in ("learning_rate", "batch_size")) and some.sum() >= 6
