"""Pictures of a fitted law: what it predicts against what the runs gave, and its frontier of compute."""

from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .. import engine
from ..laws import FLOPS_PER_PARAM_TOKEN, Frontier, Law
from ..records import Runs
from .style import ACCENT, INK, band, figure_of, panels, reach


def parametric(
    runs: Runs,
    fitted: engine.Fit[Law],
    resampled: Law | None = None,
    *,
    title: str = "Parametric fit",
    unit: str = "nats/token",
    level: float = 95,
    extrapolate: ArrayLike = (),
) -> Figure:
    """The loss that the law predicts against the runs' own; of a law with a frontier what it says of compute, too: see
    `_frontier`."""
    law, loss = fitted.law, runs[fitted.law.target]
    if isinstance(law, Frontier):
        return _frontier(runs, law, resampled, title=title, unit=unit, level=level, extrapolate=extrapolate)
    figure = figure_of(title, width=5.5)
    (axes,) = panels(figure, 1)
    ends = [loss.min() * 0.98, loss.max() * 1.02]
    axes.plot(ends, ends, color=INK, lw=0.8, ls=":")
    axes.scatter(loss, law.predict(*(runs[name] for name in law.reads)), s=12, color=ACCENT, label=f"{len(loss)} runs")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"{law.target} of the run ({unit})",
        ylabel=f"{law.target} by the law ({unit})",
    )
    axes.legend(fontsize=8)
    return figure


def _frontier(
    runs: Runs,
    law: Frontier,
    resampled: Any,
    *,
    title: str,
    unit: str,
    level: float,
    extrapolate: ArrayLike,
) -> Figure:
    """Left: every run's loss against its compute, over the law's isoFLOP-optimal loss. Right: N and D of the
    runs, over the law's contours of equal loss and the frontier. Bands are the bootstrap's interval;
    `extrapolate` lists further budgets to reach.

    Compute is 6 N D for the runs too, however their FLOPs were counted, since the frontier is that of 6 N D.
    """
    figure = figure_of(title, width=11)
    against_c, plane = panels(figure, 2)
    N, loss = runs["params"], runs["loss"]
    compute = FLOPS_PER_PARAM_TOKEN * N * runs["tokens"]
    norm = LogNorm(N.min(), N.max())
    points = against_c.scatter(compute, loss, c=N, norm=norm, s=12, cmap="viridis", label=f"{len(loss)} runs")
    figure.colorbar(points, ax=against_c, label="parameters N")
    C = reach(compute, extrapolate)
    n, d = law.optimal(C)
    against_c.plot(C, law.predict(n, d), color=ACCENT, lw=1.8, zorder=3, label="frontier of the fitted law")
    if (floor := float(law.predict(np.inf, np.inf))) > 0:
        against_c.axhline(floor, color=INK, lw=0.8, ls=":", label=f"E = {floor:.3f}")
    if resampled is not None:
        frontiers = [resampled.optimal(c) for c in C]
        band(against_c, C, np.array([resampled.predict(*nd) for nd in frontiers]), level)
    against_c.set(xscale="log", xlabel="compute C = 6 N D (FLOPs)", ylabel=f"loss ({unit})")
    against_c.set_title("loss against compute")
    against_c.legend(fontsize=8)

    if resampled is not None:
        band(plane, C, np.array([nd[0] for nd in frontiers]), level)
    sizes = np.geomspace(min(N.min(), n[0]) / 1.5, max(N.max(), n[-1]) * 1.5, 120)
    losses = law.predict(sizes[:, None], C / (FLOPS_PER_PARAM_TOKEN * sizes[:, None]))  # [N, C]
    levels = np.sort(law.predict(*law.optimal(np.geomspace(C[0], C[-1], 9)[1:-1])))
    lines = plane.contour(C, sizes, losses, levels=levels, colors=INK, linewidths=0.5, zorder=1)
    plane.clabel(lines, fmt="%.2f", fontsize=7)
    plane.scatter(compute, N, c=N, norm=norm, s=12, cmap="viridis", label=f"{len(loss)} runs")
    a, _ = law.exponents
    plane.plot(C, n, color=ACCENT, lw=1.8, zorder=3, label=f"$N_\\mathrm{{opt}} \\propto C^{{{a:.3f}}}$")
    plane.set(xscale="log", yscale="log", xlabel="compute C = 6 N D (FLOPs)", ylabel="parameters N")
    plane.set(xlim=(C[0], C[-1]))
    plane.set_title("model size, with lines of equal fitted loss")
    plane.legend(fontsize=8, loc="upper left")
    return figure
