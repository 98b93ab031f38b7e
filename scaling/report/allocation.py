"""What approaches 1 and 2 say: power laws of compute, as a dict for fit.json and as text."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .. import approach1, approach2
from ..power import Allocation
from .rows import NARROW, Report, interval, shown, table

NARROW_PROFILE = 1.5  # span of params at one budget, below which its minimum hardly shows
BESIDE = 3  # sizes either side of a minimum, with fewer of which it leans on the curve's form
FEW_BUDGETS = 4  # with fewer there is no telling whether the minima lie on a power law
BIASED = 0.25  # share of an exponent's interval that a bias may have without being worth a note


def envelope(
    fitted: approach1.Fit, draws: Allocation | None, compute: Sequence[float], *, level: float, source: str
) -> Report:
    """Approach 1: the power laws through the best runs, and the compute-optimal sizes at `compute`."""
    best = fitted.best
    report: Report = {
        "approach": 1,
        "source": source,
        "notes": [],
        "estimator": type(fitted.estimator).__name__.lower(),
        "runs": len(fitted.curves),
        "points": sum(len(c.C) for c in fitted.curves),
        "best": {"points": len(best.C), "sizes": best.sizes, "flops": [float(best.C[0]), float(best.C[-1])]},
        **_laws(fitted, draws, compute, level),
    }
    if (span := best.C[-1] / best.C[0]) < NARROW:
        report["notes"].append(f"compute spans only {span:.3g}x (100x is usual): the exponents are hardly determined")
    return report


def isoflop(
    fitted: approach2.Fit,
    draws: Allocation | None,
    compute: Sequence[float],
    *,
    level: float,
    source: str,
    bias: approach2.Bias | None = None,
) -> Report:
    """Approach 2: each budget's minimum, the power laws through them, the compute-optimal sizes at `compute`, and how
    far the estimator is off where the runs' own law is known."""
    noise = approach2.noise_of(fitted.curves)
    report: Report = {
        "approach": 2,
        "source": source,
        "notes": doubts_of_budgets(fitted)
        if noise is not None
        else [*doubts_of_budgets(fitted), approach2.NOTHING_FREE],
        "interpolation": fitted.interpolation.name,
        "runs": sum(len(c.N) for c in fitted.curves),
        "noise": None if noise is None else asdict(noise),
        "budgets": [
            {
                "budget": c.budget,
                "runs": len(c.N),
                # nan, of a curve without a minimum, is no JSON
                **{
                    key: v if np.isfinite(v) else None
                    for key, v in (("N", c.n_opt), ("D", c.d_opt), ("loss", c.loss_opt))
                },
                "beside": list(c.beside),
                "at_edge": c.at_edge,
                "used": c in fitted.used,
            }
            for c in fitted.curves
        ],
        **_laws(fitted, draws, compute, level),
    }
    if bias is not None:
        report["bias"] = {
            power: {"of_estimator": off, "corrected": float(law.exponent - off)}
            for power, off, law in (("a", bias.a, fitted.params), ("b", bias.b, fitted.tokens))
        }
        for power, (low, high) in report["intervals"].items():
            if abs(off := report["bias"][power]["of_estimator"]) > BIASED * (high - low):
                report["notes"].append(
                    f"{power} is off by {off:+.3f} by the estimator alone, if the runs follow the parametric law: "
                    "narrow the grids around the minima, or believe approach 3"
                )
    return report


def _laws(fitted: Allocation, draws: Allocation | None, compute: Sequence[float], level: float) -> Report:
    def plan(C: float) -> dict[str, Any]:
        drawn = {} if draws is None else draws.decisions(C)
        ends = {key: interval(v, level) for key, v in drawn.items() if np.isfinite(v).any()}
        return {"C": C, **{key: float(v) for key, v in fitted.decisions(C).items()}, "intervals": ends}

    exponents = {} if draws is None else {"a": draws.params.exponent, "b": draws.tokens.exponent}
    return {
        **{name: None if law is None else _plain(law) for name, law in _named(fitted).items()},
        "interval_percent": level,
        "resamples_used": 0 if draws is None else int(np.size(draws.params.exponent)),
        "intervals": {power: interval(values, level) for power, values in exponents.items()},
        "optimal": [plan(C) for C in compute],
    }


def _named(laws: Allocation) -> dict[str, Any]:
    return {"params": laws.params, "tokens": laws.tokens, "loss": laws.loss}


def _plain(law: Any) -> dict[str, float]:
    return {name: float(v) for name, v in asdict(law).items()}


def doubts_of_budgets(fitted: approach2.Fit) -> list[str]:
    budgets = [c.budget for c in fitted.used]
    notes = []
    if len(budgets) < FEW_BUDGETS:
        notes.append(f"{len(budgets)} budgets: the exponents are rough; take four or more")
    if (span := max(budgets) / min(budgets)) < NARROW:
        notes.append(f"budgets span only {span:.3g}x (100x is usual): the exponents are hardly determined")
    if narrow := [c for c in fitted.used if c.N.max() / c.N.min() < NARROW_PROFILE]:
        spans = ", ".join(f"{c.budget:.4g} ({c.N.max() / c.N.min():.3g}x)" for c in narrow[:4])
        notes.append(f"params span too little to trust a minimum at budget {spans}; 4x or more is usual")
    if lopsided := [c for c in fitted.used if min(c.beside) < BESIDE]:
        sizes = ", ".join(f"{c.budget:.4g} ({c.beside[0]} below, {c.beside[1]} above)" for c in lopsided[:4])
        notes.append(f"fewer than {BESIDE} sizes on a side of the minimum at budget {sizes}: it leans on the curve")
    return notes


def envelope_text(report: Report) -> list[str]:
    best = report["best"]
    low, high = best["flops"]
    return [
        f"{report['source']}: approach 1, the {report['estimator']} of {report['runs']} runs with "
        f"{report['points']} points",
        f"{best['sizes']} sizes are best at some compute between {low:.4g} and {high:.4g} FLOPs",
        "",
        *_laws_text(report),
    ]


def isoflop_text(report: Report) -> list[str]:
    rows = [["C (FLOPs)", "runs", "N of least loss", "D of least loss", "loss", ""]]
    for c in report["budgets"]:
        fate = "kept" if c["used"] else "left out"
        optimum = ["none" if c[key] is None else f"{c[key]:.4g}" for key in ("N", "D", "loss")]
        outside = f"minimum outside its runs: {fate}" if c["at_edge"] else ""
        rows.append([f"{c['budget']:.4g}", str(c["runs"]), *optimum, outside])
    used = sum(c["used"] for c in report["budgets"])
    lines = [
        f"{report['source']}: approach 2, {report['runs']} runs, {report['interpolation']} for each budget",
        "",
        *table(rows),
        "",
    ]
    if (noise := report["noise"]) is not None:
        how = "between equal runs" if noise["seeds"] else "about smooth curves"
        lines.append(
            f"noise of a run: {100 * noise['sigma']:.2g} % of the loss, by {noise['freedom']} differences {how}"
        )
    lines += [f"power laws through {used} minima", *_laws_text(report)]
    if "bias" in report:
        each = (
            f"{power} {v['of_estimator']:+.4f} (corrected: {v['corrected']:.4f})" for power, v in report["bias"].items()
        )
        lines.append(f"bias of the estimator, if the runs follow the law of approach 3: {', '.join(each)}")
    return lines


def _laws_text(report: Report) -> list[str]:
    percent = f"{report['interval_percent']:g} % of {report['resamples_used']} resamples" if report["intervals"] else ""
    rows = [["", "", percent]]
    for letter, name, power in (("N", "params", "a"), ("D", "tokens", "b")):
        law = report[name]
        formula, exponent = f"{letter} = {law['coefficient']:.4g} C^{power}", f"{power} = {law['exponent']:.4f}"
        rows.append([formula, exponent, shown(report["intervals"].get(power))])
    lines = table(rows) if percent else table(rows[1:])
    if report["loss"] is not None:
        lines.append("loss = {E:.4f} + {k:.4g} C^-{gamma:.4f} at those sizes".format(**report["loss"]))
    return lines
