"""Pictures of fits: isoFLOP profiles with their minima (approach 2), and runs against the fitted frontier
(approach 3).

Each function returns a matplotlib `Figure` that belongs to no window and no global state; `save` writes it.
"""

import os
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from . import approach2, approach3
from .laws import FLOPS_PER_PARAM_TOKEN, Array, Frontier, Law, Value
from .records import Runs

INK = "#333333"
ACCENT = "#d1495b"


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    figure.savefig(path, dpi=150)


def isoflop(
    fitted: approach2.Fit,
    resampled: tuple[approach2.PowerLaw, approach2.PowerLaw] | None = None,
    *,
    title: str = "IsoFLOP profiles",
    unit: str = "nats/token",
    level: float = 95,
    extrapolate: ArrayLike = (),
) -> Figure:
    """Left: loss against N for each budget, with its parabola and minimum (hollow where it was left out).
    Right: the minima in N and in D against compute, the power laws through them, and the bootstrap's
    interval; `extrapolate` lists further budgets that the lines must reach."""
    figure = _figure(title, width=11)
    profiles, sizes, tokens = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    budgets = np.array([c.budget for c in fitted.curves])
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(budgets)))
    low, high = min(c.N.min() for c in fitted.curves) / 1.5, max(c.N.max() for c in fitted.curves) * 1.5
    for curve, colour in zip(fitted.curves, colours, strict=True):
        n = np.geomspace(curve.N.min(), curve.N.max(), 100)
        profiles.plot(n, np.polyval(curve.parabola, np.log(n) - curve.log_n_mean), color=colour, lw=1.2)
        profiles.scatter(curve.N, curve.loss, s=14, color=colour, label=f"{curve.budget:.2g}")
        if curve not in fitted.used and not low < curve.n_opt < high:
            continue  # a vertex far away would set the scale of every axis
        fill = colour if curve in fitted.used else "none"
        for axes, x, y in (
            (profiles, curve.n_opt, curve.loss_opt),
            (sizes, curve.budget, curve.n_opt),
            (tokens, curve.budget, curve.d_opt),
        ):
            axes.scatter(x, y, s=110, marker="*", facecolor=fill, edgecolor=INK, lw=0.7, zorder=3)
    profiles.set(xscale="log", xlim=(low, high), xlabel="parameters N", ylabel=f"loss ({unit})")
    hollow = " (hollow: outside the runs)" if len(fitted.used) < len(budgets) else ""
    profiles.set_title(f"loss at equal compute{hollow}", fontsize=10)
    profiles.legend(title="C (FLOPs)", fontsize=7, title_fontsize=8, ncols=1 + len(budgets) // 7)
    ends = np.concatenate([budgets, np.atleast_1d(np.asarray(extrapolate, np.float64))])
    C = np.geomspace(ends.min() / 1.5, ends.max() * 1.5, 100)
    for i, (axes, law, letter, what, power) in enumerate(
        ((sizes, fitted.params, "N", "parameters", "a"), (tokens, fitted.tokens, "D", "tokens", "b"))
    ):
        axes.plot(
            C,
            law(C),
            color=ACCENT,
            lw=1.5,
            label=f"${letter} = {_tex(law.coefficient)}\\,C^{{{law.exponent:.3f}}}$",
        )
        if resampled is not None and len(np.atleast_1d(resampled[i].exponent)):
            _band(axes, C, np.array([resampled[i](c) for c in C]), level)
        axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel=f"{what} of least loss")
        axes.set_title(f"${letter}_\\mathrm{{opt}} \\propto C^{power}$")
        axes.legend(fontsize=8)
    return figure


def parametric(
    runs: Runs,
    fitted: approach3.Fit[Law],
    resampled: Law | None = None,
    *,
    title: str = "Parametric fit",
    unit: str = "nats/token",
    level: float = 95,
    extrapolate: ArrayLike = (),
) -> Figure:
    """The loss that the law predicts against the runs' own; of a law with a frontier what it says of compute, too: see
    `_frontier`."""
    law, loss = fitted.law, runs["loss"]
    if isinstance(law, Frontier):
        return _frontier(runs, law, resampled, title=title, unit=unit, level=level, extrapolate=extrapolate)
    figure = _figure(title, width=5.5)
    axes = figure.subplots()
    ends = [loss.min() * 0.98, loss.max() * 1.02]
    axes.plot(ends, ends, color=INK, lw=0.8, ls=":")
    axes.scatter(loss, law.loss(*(runs[name] for name in law.reads)), s=12, color=ACCENT, label=f"{len(loss)} runs")
    axes.set(xscale="log", yscale="log", xlabel=f"loss of the run ({unit})", ylabel=f"loss by the law ({unit})")
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
    figure = _figure(title, width=11)
    against_c, plane = figure.subplots(1, 2)
    N, loss = runs["params"], runs["loss"]
    compute = FLOPS_PER_PARAM_TOKEN * N * runs["tokens"]
    norm = LogNorm(N.min(), N.max())
    points = against_c.scatter(compute, loss, c=N, norm=norm, s=12, cmap="viridis", label=f"{len(loss)} runs")
    figure.colorbar(points, ax=against_c, label="parameters N")
    ends = np.concatenate([compute, np.atleast_1d(np.asarray(extrapolate, np.float64))])
    C = np.geomspace(ends.min() / 1.5, ends.max() * 1.5, 100)
    n, d = law.optimal(C)
    against_c.plot(C, law.loss(n, d), color=ACCENT, lw=1.8, zorder=3, label="frontier of the fitted law")
    if (floor := float(law.loss(np.inf, np.inf))) > 0:
        against_c.axhline(floor, color=INK, lw=0.8, ls=":", label=f"E = {floor:.3f}")
    if resampled is not None:
        frontiers = [resampled.optimal(c) for c in C]
        _band(against_c, C, np.array([resampled.loss(*nd) for nd in frontiers]), level)
    against_c.set(xscale="log", xlabel="compute C = 6 N D (FLOPs)", ylabel=f"loss ({unit})")
    against_c.set_title("loss against compute")
    against_c.legend(fontsize=8)

    if resampled is not None:
        _band(plane, C, np.array([nd[0] for nd in frontiers]), level)
    sizes = np.geomspace(min(N.min(), n[0]) / 1.5, max(N.max(), n[-1]) * 1.5, 120)
    losses = law.loss(sizes[:, None], C / (FLOPS_PER_PARAM_TOKEN * sizes[:, None]))  # [N, C]
    levels = np.sort(law.loss(*law.optimal(np.geomspace(C[0], C[-1], 9)[1:-1])))
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


def _tex(value: Value) -> str:
    mantissa, _, power = f"{value:.4g}".partition("e")
    return f"{mantissa} \\cdot 10^{{{int(power)}}}" if power else mantissa


def _figure(title: str, width: float) -> Figure:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure


def _band(axes: Axes, C: Array, values: Array, level: float) -> None:
    """Shade the central `level` percent of values [len(C), resamples]."""
    low, high = np.percentile(values, [50 - level / 2, 50 + level / 2], axis=1)
    axes.fill_between(C, low, high, color=ACCENT, alpha=0.2, lw=0, label=f"{level:g} % of resamples")
