"""What a fit says: as a dict for fit.json, and as text for a terminal."""

from .allocation import envelope, envelope_text, isoflop, isoflop_text
from .law import ASIDE, compared, fitted_law, law_text, same_at_any_compute, sound
from .rows import Report, shown, table

__all__ = ["Report", "compared", "envelope", "fitted_law", "isoflop", "sound", "text"]


def text(report: Report) -> str:
    """The report as lines of at most about 130 characters."""
    lines = TEXTS[report["approach"]](report)
    if not report["optimal"]:
        return "\n".join([*lines, *report["notes"]])
    rows = [["C (FLOPs)"]]
    once = same_at_any_compute(report["optimal"])
    keys = [key for key in report["optimal"][0] if key not in (*ASIDE, *once)]
    for key in keys:
        rows[0] += [key, ""]
    rows[0].append("one run's loss" if report["optimal"][0].get("run") else "")
    for plan in report["optimal"]:
        cells = [
            ["none" if plan[key] is None else f"{plan[key]:.4g}", shown(plan["intervals"].get(key))] for key in keys
        ]
        rows.append([f"{plan['C']:.4g}", *(cell for pair in cells for cell in pair), shown(plan.get("run"))])
    return "\n".join([*lines, *report["notes"], "", "compute-optimal size", *table(rows)])


TEXTS = {1: envelope_text, 2: isoflop_text, 3: law_text}
