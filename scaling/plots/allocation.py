"""Pictures of approaches 1 and 2: what is best at some compute, and the power laws through that."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .. import approach1, approach2
from ..laws import Array
from ..power import Allocation
from .style import ACCENT, INK, band, colours, figure_of, panels, plain_ticks, reach, tex


def isoflop(
    fitted: approach2.Fit,
    resampled: Allocation | None = None,
    *,
    title: str = "IsoFLOP profiles",
    unit: str = "nats/token",
    level: float = 95,
    extrapolate: ArrayLike = (),
) -> Figure:
    """Left: loss against N for each budget, with its curve and minimum (hollow where it was left out). Right: the
    minima in N and in D against compute, the power laws through them, and the interval of the draws; `extrapolate`
    lists further budgets that the lines must reach."""
    figure = figure_of(title, width=12)
    profiles, sizes, tokens = panels(figure, 3, width_ratios=[1.5, 1, 1])
    budgets = np.array([c.budget for c in fitted.curves])
    low, high = min(c.N.min() for c in fitted.curves) / 1.5, max(c.N.max() for c in fitted.curves) * 1.5
    for curve, colour in zip(fitted.curves, colours(len(budgets)), strict=True):
        n = np.geomspace(curve.N.min(), curve.N.max(), 200)
        profiles.plot(n, curve.at(n), color=colour, lw=1.2)
        profiles.scatter(curve.N, curve.loss, s=14, color=colour, label=f"{curve.budget:.2g}")
        if curve not in fitted.used and not low < curve.n_opt < high:
            continue  # a minimum far away would set the scale of every axis
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
    _laws([sizes, tokens], fitted, resampled, reach(budgets, extrapolate), level)
    return figure


def envelope(
    fitted: approach1.Fit,
    resampled: Allocation | None = None,
    *,
    title: str = "The envelope of all runs",
    unit: str = "nats/token",
    level: float = 95,
    extrapolate: ArrayLike = (),
) -> Figure:
    """Left: every run's loss against its compute, coloured by size, over the least of them. Right: the sizes and tokens
    of the best runs, the power laws through them, and the interval of the draws."""
    figure = figure_of(title, width=12)
    losses, sizes, tokens = panels(figure, 3, width_ratios=[1.5, 1, 1])
    order = sorted(fitted.curves, key=lambda c: c.N)
    several = sorted({c.N for c in order})
    kinds = dict(zip(several, colours(len(several)), strict=True))
    for curve in order:
        losses.plot(curve.C, curve.loss, color=kinds[curve.N], lw=0.9, marker="o", ms=2.5, alpha=0.8)
    best = fitted.best
    if isinstance(fitted.estimator, approach1.Hull):
        losses.plot(best.C, best.loss, color=ACCENT, lw=1.2, marker="o", ms=6, mfc="none", label="corners of the hull")
    else:
        losses.plot(best.C, best.loss, ls="", marker=".", ms=3, color=ACCENT, label="least loss", zorder=3)
    if fitted.loss is not None:
        C = reach(best.C, extrapolate)
        losses.plot(C, fitted.loss(C), color=INK, lw=1, ls="--", label="$E + k\\,C^{-\\gamma}$")
    losses.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel=f"loss ({unit})")
    plain_ticks(losses)
    losses.set_title(f"{len(fitted.curves)} runs of {len(kinds)} sizes, dark: small", fontsize=10)
    losses.legend(fontsize=8)
    for axes, values in ((sizes, best.N), (tokens, best.D)):
        axes.scatter(best.C, values, s=12, color=INK, zorder=3)
    _laws([sizes, tokens], fitted, resampled, reach(best.C, extrapolate), level)
    return figure


def agreement(
    exponents: Mapping[str, Mapping[str, tuple[float, float, float]]], *, title: str = "Exponents by each approach"
) -> Figure:
    """Of approaches by name, each exponent (value, low, high) with its interval: points on one vertical line agree."""
    figure = figure_of(title, width=11, height=1.4 + 0.28 * len(exponents))
    both = panels(figure, 2, sharey=True)
    places = -np.arange(len(exponents))
    for axes, power, letter in zip(both, "ab", "ND", strict=True):
        value, low, high = np.array([each[power] for each in exponents.values()]).T
        axes.hlines(places, low, high, color=ACCENT, lw=4, alpha=0.3)
        axes.scatter(value, places, color=INK, s=26, zorder=3)
        axes.axvline(0.5, color=INK, lw=0.7, ls=":")
        axes.set_title(f"${letter}_\\mathrm{{opt}} \\propto C^{power}$", fontsize=10)
        axes.set(xlabel=power)
    both[0].set_yticks(places, list(exponents))
    both[0].set_ylim(places[-1] - 0.6, 0.6)
    return figure


def _laws(both: Sequence[Axes], laws: Allocation, draws: Allocation | None, C: Array, level: float) -> None:
    """N_opt(C) and D_opt(C)."""
    of_draws = (None, None) if draws is None else (draws.params, draws.tokens)
    kinds = ((laws.params, "N", "parameters", "a"), (laws.tokens, "D", "tokens", "b"))
    for axes, (law, letter, what, power), drawn in zip(both, kinds, of_draws, strict=True):
        formula = f"${letter} = {tex(law.coefficient)}\\,C^{{{law.exponent:.3f}}}$"
        axes.plot(C, law(C), color=ACCENT, lw=1.5, label=formula)
        if drawn is not None:
            band(axes, C, np.array([drawn(c) for c in C]), level)
        axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel=f"{what} of least loss")
        axes.set_title(f"${letter}_\\mathrm{{opt}} \\propto C^{power}$", fontsize=10)
        axes.legend(fontsize=8)
