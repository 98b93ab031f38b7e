"""What a fit says: as a dict for fit.json, and as text for a terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from . import approach2, approach3
from .laws import Array, Frontier, L, Law, Value

Report = dict[str, Any]

# Below these spans (largest over smallest) an exponent hardly shows; published fits have a hundred times and more.
NARROW = 4.0  # of params, of tokens, of budgets
NARROW_PROFILE = 1.5  # of params at one budget
HARDLY_APART = 0.15  # share of their spread that runs have off a line in log N and log D
NO_FLOOR = 0.01  # share of the least loss, below which a term of the law is as good as zero


def parametric(
    fitted: approach3.Fit[Law],
    resampled: Law | None,
    compute: Sequence[float],
    *,
    level: float,
    source: str,
) -> Report:
    """Constants, objective and, of a law with a frontier, the compute-optimal sizes at `compute`, with the interval of
    `level` percent of the resampled laws. Resamples without a frontier (see `sound`) count in no interval, but are
    counted."""
    kept = None if resampled is None else sound(resampled)
    kept = None if kept is None or _draws(kept) < 2 else kept  # one draw spans no interval
    report: Report = {
        "approach": 3,
        "law": fitted.law.formula,
        "source": source,
        "notes": [],
        "runs": fitted.runs,
        "delta": fitted.delta,
        "objective": fitted.objective,
        "starts": fitted.starts,
        "reached": fitted.reached,
        "constants": {key: float(v) for key, v in _constants(fitted.law).items()},
        "interval_percent": level,
        "resamples": 0 if resampled is None else _draws(resampled),
        "resamples_used": 0 if kept is None else _draws(kept),
        "intervals": {},
    }
    if kept is not None:
        report["intervals"] = {key: _interval(values, level) for key, values in _constants(kept).items()}
    law = fitted.law
    report["optimal"] = [_parametric_plan(law, kept, C, level) for C in compute] if isinstance(law, Frontier) else []
    return report


def isoflop(
    fitted: approach2.Fit,
    resampled: tuple[approach2.PowerLaw, approach2.PowerLaw] | None,
    compute: Sequence[float],
    *,
    level: float,
    source: str,
) -> Report:
    """Each budget's minimum, the power laws through them and the compute-optimal sizes at `compute`."""
    draws = None if resampled is None or np.size(resampled[0].exponent) < 2 else resampled  # one spans no interval
    report: Report = {
        "approach": 2,
        "source": source,
        "notes": _doubts_of_profiles(fitted),
        "runs": sum(len(c.N) for c in fitted.curves),
        "budgets": [
            {
                "budget": c.budget,
                "runs": len(c.N),
                # nan, of a parabola without a minimum, is no JSON
                **{
                    key: v if np.isfinite(v) else None
                    for key, v in (("N", c.n_opt), ("D", c.d_opt), ("loss", c.loss_opt))
                },
                "at_edge": c.at_edge,
                "used": c in fitted.used,
            }
            for c in fitted.curves
        ],
        "params": asdict(fitted.params),
        "tokens": asdict(fitted.tokens),
        "loss": None if fitted.loss is None else asdict(fitted.loss),
        "interval_percent": level,
        "resamples_used": 0 if draws is None else np.size(draws[0].exponent),
        "intervals": {},
    }
    if draws is not None:
        report["intervals"] = {key: _interval(law.exponent, level) for key, law in zip("ab", draws, strict=True)}
    report["optimal"] = [_isoflop_plan(fitted, draws, C, level) for C in compute]
    return report


def doubts_of_law(law: Law, inputs: Sequence[Array], loss: Array) -> list[str]:
    """What the runs hardly show: exponents over narrow ranges, N and D apart from one another, terms of the law."""
    read = dict(zip(law.reads, inputs, strict=True))
    notes = [
        f"{name} span only {span:.3g}x (100x is usual): an exponent of them is hardly determined"
        for name, v in read.items()
        if (span := float(v.max() / v.min())) < NARROW
    ]
    if law.reads[:2] == ("params", "tokens"):
        line = approach3.line_of(*inputs[:2])
        if line.share < HARDLY_APART:
            near = f"within a factor of {line.factor:.3g} of D ~ N^{line.slope:.2f}"
            notes.append(f"N and D are hardly told apart: all runs lie {near}")
    # What is left of the loss without one input's limit, and without all: an infinite one costs nothing.
    endless = {name: np.full_like(v, np.inf) for name, v in read.items()}
    gained = {name: law.loss(*inputs) - law.loss(*(read | {name: endless[name]}).values()) for name in read}
    gone = [f"what {name} cost" for name, part in gained.items() if part.max() < NO_FLOOR * loss.min()]
    if "E" in _constants(law) and law.loss(*endless.values()).max() < NO_FLOOR * loss.min():
        gone.insert(0, "E")
    return notes + [f"{what} is next to nothing: these runs do not show that term" for what in gone]


def _doubts_of_profiles(fitted: approach2.Fit) -> list[str]:
    budgets = [c.budget for c in fitted.used]
    notes = []
    if (span := max(budgets) / min(budgets)) < NARROW:
        notes.append(f"budgets span only {span:.3g}x (100x is usual): the exponents are hardly determined")
    narrow = [c for c in fitted.used if c.N.max() / c.N.min() < NARROW_PROFILE]
    if narrow:
        shown = ", ".join(f"{c.budget:.4g} ({c.N.max() / c.N.min():.3g}x)" for c in narrow[:4])
        notes.append(f"params span too little to trust a minimum at budget {shown}; 4x or more is usual")
    return notes


def sound(laws: L) -> L | None:
    """Of resampled laws, those that have a compute-optimal frontier, if it is a law that may have one; None if none."""
    if not isinstance(laws, Frontier):
        return laws
    good = np.atleast_1d(laws.sound)
    kept = {key: np.atleast_1d(values)[good] for key, values in asdict(laws).items()}  # type: ignore[call-overload]
    return type(laws)(**kept) if good.any() else None


def _constants(law: Law) -> dict[str, Any]:
    """The law's own and, of one with a frontier, the exponents of that."""
    own: dict[str, Any] = asdict(law)  # type: ignore[call-overload]
    return own | dict(zip("ab", law.exponents, strict=True)) if isinstance(law, Frontier) else own


def _draws(laws: Law) -> int:
    return np.size(next(iter(_constants(laws).values())))


def text(report: Report) -> str:
    """The report as lines of at most about 130 characters."""
    lines = _parametric_text(report) if report["approach"] == 3 else _isoflop_text(report)
    if not report["optimal"]:
        return "\n".join([*lines, *report["notes"]])
    rows = [["C (FLOPs)"]]
    keys = [key for key in ("N", "D", "D/N", "loss") if key in report["optimal"][0]]
    for key in keys:
        rows[0] += [key, ""]
    for plan in report["optimal"]:
        cells = [[f"{plan[key]:.4g}", _shown(plan["intervals"].get(key))] for key in keys]
        rows.append([f"{plan['C']:.4g}", *(cell for pair in cells for cell in pair)])
    return "\n".join([*lines, *report["notes"], "", "compute-optimal size", *_table(rows)])


def _parametric_text(report: Report) -> list[str]:
    used, drawn = report["resamples_used"], report["resamples"]
    header = f"{report['interval_percent']:g} % of {used} resamples" if used else ""
    constants = report["constants"].items()
    lines = [
        f"{report['source']}: approach 3, {report['law']}, {report['runs']} runs",
        f"objective {report['objective']:.6e}: sum of Huber(error in log loss), delta {report['delta']:g}",
        f"{report['reached']} of {report['starts']} starts came within 0.1 % of it",
        "",
        *_table(
            [
                ["", "fit", header],
                *([k, f"{v:.5g}", _shown(report["intervals"].get(k))] for k, v in constants),
            ]
        ),
        "constants move with one another: compare fits by a, b and what they predict",
    ]
    if used < drawn:
        lines.append(
            f"{drawn - used} of {drawn} resamples have no frontier and are left out: the runs hardly identify it"
        )
    return lines


def _isoflop_text(report: Report) -> list[str]:
    rows = [["C (FLOPs)", "runs", "N of least loss", "D of least loss", "loss", ""]]
    for c in report["budgets"]:
        fate = "kept" if c["used"] else "left out"
        optimum = ["none" if c[key] is None else f"{c[key]:.4g}" for key in ("N", "D", "loss")]
        rows.append(
            [
                f"{c['budget']:.4g}",
                str(c["runs"]),
                *optimum,
                f"minimum outside its runs: {fate}" if c["at_edge"] else "",
            ]
        )
    used = sum(c["used"] for c in report["budgets"])
    resamples = (
        f", {report['interval_percent']:g} % of {report['resamples_used']} resamples" if report["intervals"] else ""
    )
    laws = [
        [
            f"{letter} = {report[name]['coefficient']:.4g} C^{power}",
            f"{power} = {report[name]['exponent']:.4f}",
        ]
        + [_shown(report["intervals"].get(power))]
        for letter, name, power in (("N", "params", "a"), ("D", "tokens", "b"))
    ]
    lines = [
        f"{report['source']}: approach 2, {report['runs']} runs, a parabola for each of the budgets",
        "",
        *_table(rows),
        "",
        f"power laws through {used} minima{resamples}",
        *_table(laws),
    ]
    if report["loss"] is not None:
        lines.append("loss = {E:.4f} + {k:.4g} C^-{gamma:.4f} at those minima".format(**report["loss"]))
    return lines


def _parametric_plan(law: Frontier, draws: Any, C: float, level: float) -> Report:
    def sizes(law: Frontier) -> dict[str, Any]:
        n, d = law.optimal(C)
        return {"N": n, "D": d, "D/N": d / n, "loss": law.loss(n, d)}

    intervals = {} if draws is None else {key: _interval(v, level) for key, v in sizes(draws).items()}
    return {"C": C, **{key: float(v) for key, v in sizes(law).items()}, "intervals": intervals}


def _isoflop_plan(
    fitted: approach2.Fit, draws: tuple[approach2.PowerLaw, approach2.PowerLaw] | None, C: float, level: float
) -> Report:
    def sizes(params: approach2.PowerLaw, tokens: approach2.PowerLaw) -> dict[str, Any]:
        return {"N": params(C), "D": tokens(C), "D/N": tokens(C) / params(C)}

    plan = {"C": C, **{key: float(v) for key, v in sizes(fitted.params, fitted.tokens).items()}}
    if fitted.loss is not None:
        plan["loss"] = float(fitted.loss(C))
    intervals = {} if draws is None else {key: _interval(v, level) for key, v in sizes(*draws).items()}
    return {**plan, "intervals": intervals}


def _interval(values: Value, level: float) -> list[float]:
    return [float(v) for v in np.percentile(values, [50 - level / 2, 50 + level / 2])]


def _shown(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} ... {interval[1]:.4g}"


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True) if w).rstrip() for row in rows]
