"""What approach 3 says: a law's constants, how far to trust them and what follows, as a dict for fit.json and as
text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import engine
from ..approach3 import Score, Study
from ..laws import Frontier, Law
from .rows import Report, shown, table

ASIDE = ("C", "intervals", "profiles", "run")  # what a row of `optimal` holds beside decisions
MOVING_TOGETHER = 0.95  # correlation of two constants that is worth a line


def fitted_law(study: Study, name: str, compute: Sequence[float], *, level: float, source: str, unit: str) -> Report:
    """A law by its `name` in `LAWS`, with intervals of `level` percent, and its decisions at `compute`. Ends that were
    not found are null."""
    fitted, estimate = study.fitted, study.estimate
    law, space = fitted.law, fitted.space
    profiles = {"": study.profiles} | {str(C): found for C, found in study.decided.items()}
    return _without_nan(
        {
            "approach": 3,
            **engine.to_json(estimate, name),
            "formula": law.formula,
            "target": law.target,
            "residual": law.residual,
            "unit": unit,
            "source": source,
            "notes": list(study.notes),
            "runs": fitted.runs,
            "delta": fitted.delta if np.isfinite(fitted.delta) else None,
            "objective": fitted.objective,
            "starts": fitted.starts,
            "reached": fitted.reached,
            "fixed": dict(space.fixed),
            "tied": dict(space.tied),
            "interval_percent": level,
            "resamples": 0 if estimate.resampled is None else len(next(iter(estimate.resampled.constants().values()))),
            "intervals": _intervals(estimate.constants(level)),
            "profiles": _ends(study.profiles),
            "curves": {
                key: {q: {"values": p.values.tolist(), "rises": p.rises.tolist()} for q, p in found.items()}
                for key, found in profiles.items()
            },
            "correlations": {"constants": list(space.free), "matrix": study.correlations.tolist()},
            "held_out": None
            if study.held is None
            else vars(study.held.score) | {"flops": list(study.held.score.flops)},
            "optimal": [
                {
                    "C": C,
                    **{key: found.value for key, found in decisions.items()},
                    "intervals": _intervals(decisions),
                    "profiles": _ends(study.decided.get(C, {})),
                    "run": _one_run(estimate, decisions, level),
                }
                for C in compute
                if (decisions := estimate.decisions(C, level))
            ],
        }
    )


def compared(scores: Mapping[str, Score]) -> list[dict[str, Any]]:
    """Laws by name, in their order, with their errors on the runs held out."""
    return [
        {"law": name, **vars(score), "held": None if score.held is None else vars(score.held)}
        for name, score in scores.items()
    ]


def law_text(report: Report) -> list[str]:
    delta = "least squares" if report["delta"] is None else f"sum of Huber losses, delta {report['delta']:g}"
    error = f"error in {'log ' if report['residual'] == 'log' else ''}{report['target']}"
    lines = [
        f"{report['source']}: approach 3, {report['law']}: {report['formula']}, {report['runs']} runs",
        f"objective {report['objective']:.6e}: {delta}, of the {error}",
        f"{report['reached']} of {report['starts']} starts came within 0.1 % of it",
        f"a run scatters about the law by {_size(report['noise'], report)}",
        _held(report),
        "",
        *_constants(report),
        *_correlated(report),
    ]
    if report.get("compared"):
        lines += ["", "laws by the error of held-out runs", *_compared(report)]
    return [line for line in lines if line is not None]


def _constants(report: Report) -> list[str]:
    percent, count = report["interval_percent"], report["resamples"]
    rows = [
        ["", "fit", f"{percent:g} % of {count} resamples" if count else "", "profile" if report["profiles"] else ""]
    ]
    for key, value in report["constants"].items():
        held = f"= {report['tied'][key]}" if key in report["tied"] else "fixed" if key in report["fixed"] else None
        rows.append(
            [key, f"{value:.5g}", held or shown(report["intervals"].get(key)), _open(report["profiles"].get(key))]
        )
    if report["optimal"]:
        first = report["optimal"][0]
        for key in same_at_any_compute(report["optimal"]):
            rows.append(
                [key, f"{first[key]:.5g}", shown(first["intervals"].get(key)), _open(first["profiles"].get(key))]
            )
    return table(rows)


def same_at_any_compute(optimal: Sequence[Report]) -> list[str]:
    """Decisions that do not depend on the compute, such as exponents."""
    names = [key for key in optimal[0] if key not in ASIDE]
    known = [key for key in names if optimal[0][key] is not None]
    return [key for key in known if len({row[key] for row in optimal}) == 1 and len(optimal) > 1]


def _correlated(report: Report) -> list[str]:
    names, matrix = report["correlations"]["constants"], report["correlations"]["matrix"]
    pairs = [(matrix[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    close = sorted(p for p in pairs if p[0] is not None and abs(p[0]) > MOVING_TOGETHER)
    if not close:
        return []
    said = ", ".join(f"{x} and {y} ({c:+.3f})" for c, y, x in sorted(close, key=lambda p: -abs(p[0]))[:3])
    return [f"constants that move together: {said}; compare fits by what they predict"]


def _held(report: Report) -> str | None:
    held = report["held_out"]
    if held is None:
        return None
    low, high = held["flops"]
    at = f"{low:.4g}" if low == high else f"{low:.4g} ... {high:.4g}"
    inside = "" if held["inside"] is None else f"; {held['inside']} inside their 90 % interval"
    return (
        f"held out, the {held['runs']} largest runs ({at} FLOPs): predicted with an error of "
        f"{_size(held['error'], report)} (root mean square), worst {_size(held['worst'], report)}{inside}"
    )


def _compared(report: Report) -> list[str]:
    rows = [["", "constants", "held-out error", "scatter", ""]]
    for row in report["compared"]:
        held = "none" if row["held"] is None else _size(row["held"]["error"], report)
        noise = "none" if row["noise"] is None else _size(row["noise"], report)
        rows.append([row["law"], str(row["constants"] or ""), held, noise, row["why"]])
    return table(rows)


def _size(error: float, report: Report) -> str:
    return f"{100 * error:.3g} %" if report["residual"] == "log" else f"{error:.3g}"


def _open(ends: Sequence[float | None] | None) -> str:
    if ends is None:
        return ""
    low, high = ("?" if end is None else f"{end:.4g}" for end in ends)
    return f"{low} ... {high}"


def _intervals(found: Mapping[str, engine.Interval]) -> dict[str, list[float]]:
    return {key: [v.low, v.high] for key, v in found.items() if np.isfinite([v.low, v.high]).all()}


def _one_run(
    estimate: engine.Estimate[Law], decisions: Mapping[str, engine.Interval], level: float
) -> list[float] | None:
    """Between what the loss of one run at the decided size would lie."""
    if not isinstance(estimate.law, Frontier):
        return None
    said = estimate.predict(decisions["N_opt"].value, decisions["D_opt"].value, level=level)
    return [float(said.run_low), float(said.run_high)]


def _ends(profiles: Mapping[str, engine.Profile]) -> dict[str, list[float]]:
    return {key: [p.low, p.high] for key, p in profiles.items()}


def _without_nan(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def sound(laws: Law | None) -> Law | None:
    """Of resampled laws, those that answer: whose decisions are numbers. None if none do."""
    if laws is None:
        return None
    decided = laws.decisions(1.0)
    good = np.all([np.isfinite(v) for v in decided.values()], axis=0) if decided else True
    kept = {key: v[good] for key, v in laws.constants().items()} if decided else laws.constants()
    return type(laws)(**kept) if np.any(good) else None
