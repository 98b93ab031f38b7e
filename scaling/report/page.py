"""A survey as one page that one can show to colleagues."""

from collections.abc import Sequence

import numpy as np

from .. import plots
from ..approach3 import Study
from ..laws import Frontier
from ..records import Runs
from ..survey import Envelope, Isoflop, Survey
from .allocation import doubts_of_budgets
from .html import Cell, code, doubts, folded, heading, page, paragraph, picture, section, table
from .law import sound
from .rows import interval

RECORDS = 400  # rows of the table of runs
COLUMNS = ("params", "tokens", "flops", "loss", "budget", "learning_rate", "batch_size", "seed")  # of that table
DECISIONS = ("N_opt", "D_opt", "D/N", "loss")


def render(survey: Survey, compute: Sequence[float], *, source: str, command: str, unit: str) -> str:
    """The page, of decisions at `compute` FLOPs; `source` names the runs, `command` makes the page again."""
    level = survey.settings.level
    runs = survey.runs
    spent = runs["flops"]
    about = (
        f"{len(spent)} runs of {runs['params'].min():.3g} to {runs['params'].max():.3g} parameters on "
        f"{runs['tokens'].min():.3g} to {runs['tokens'].max():.3g} tokens, {spent.min():.3g} to {spent.max():.3g} "
        f"FLOPs each; loss in {unit}. Intervals hold {level:g} %."
    )
    parts = [
        section("How to spend compute", _decisions(survey, compute)),
        *_doubts(survey),
        *(section(f"Approach 3: {name}", _law(survey, law, compute, unit)) for name, law in survey.laws.items()),
        *_held_out(survey, unit),
        *(section(f"Approach 2: {fit.name}", _isoflop(survey, fit, compute, unit)) for fit in survey.isoflops),
        *(section(f"Approach 1: {fit.name}", _envelope(survey, fit, compute, unit)) for fit in survey.envelopes),
        *_rates(runs),
        section("The runs", [_records(runs), heading("This page"), code(command)]),
    ]
    return page(f"Scaling laws of {source}", about, parts)


def _decisions(survey: Survey, compute: Sequence[float]) -> list[str]:
    """Exponents by every approach, and what they would do with each amount of compute."""
    level = survey.settings.level
    answers: dict[str, list[dict[str, tuple[float, float, float]]]] = {}
    for name, law in survey.laws.items():
        if isinstance(law.estimate.law, Frontier):
            said = [law.estimate.decisions(C, level) for C in compute]
            answers[f"3, {name}"] = [{k: (v.value, v.low, v.high) for k, v in each.items()} for each in said]
    for name, (laws, draws) in survey.allocations.items():
        answers[name] = []
        for C in compute:
            drawn = {} if draws is None else draws.decisions(C)
            ends = {k: interval(v, level) for k, v in drawn.items() if np.isfinite(v).any()}
            values = laws.decisions(C)
            answers[name].append({k: (float(v), *ends.get(k, (np.nan, np.nan))) for k, v in values.items()})
    if not answers:
        return [paragraph("No approach says how to divide compute; see what is missing below.")]
    parts = [
        paragraph(
            "The exponents of N_opt ~ C^a and D_opt ~ C^b by each approach. Where approaches differ by more than their "
            "intervals, an assumption of one does not hold: that is what no interval shows."
        ),
        table(
            ["approach", "a", "b"],
            [[name, _between(*each[0]["a"]), _between(*each[0]["b"])] for name, each in answers.items()],
        ),
        picture(
            plots.agreement({name: each[0] for name, each in answers.items()}),
            "Bars are intervals; what lies on one vertical line agrees. Dotted: 0.5, where size and tokens grow alike.",
        ),
    ]
    for i, C in enumerate(compute):
        rows = [
            [name, *(_between(*each[i][key]) if key in each[i] else "" for key in DECISIONS)]
            for name, each in answers.items()
        ]
        names = ["approach", "parameters", "tokens", "tokens per parameter", "loss"]
        beyond = C / survey.runs["flops"].max()
        how = "within the runs' range" if beyond <= 1.01 else f"{beyond:.3g} x the largest run"
        parts += [heading(f"{C:.4g} FLOPs ({how})"), table(names, rows)]
    return parts


def _doubts(survey: Survey) -> list[str]:
    lines = [f"approach 3, {name}: {line}" for name, law in survey.laws.items() for line in law.notes]
    lines += [f"approach 2, {fit.name}: {line}" for fit in survey.isoflops for line in doubts_of_budgets(fit.fit)]
    lines += [f"no {what}: {why}" for what, why in survey.missing.items()]
    return [section("Doubts", [doubts(lines)])] if lines else []


def _law(survey: Survey, law: Study, compute: Sequence[float], unit: str) -> list[str]:
    level, estimate, fit = survey.settings.level, law.estimate, law.fitted
    rows: list[list[Cell]] = []
    for name, found in estimate.constants(level).items():
        profile = law.profiles.get(name)
        held: Cell = "" if profile is None else f"{_number(profile.low)} ... {_number(profile.high)}"
        rows.append([name, f"{found.value:.5g}", f"{_number(found.low)} ... {_number(found.high)}", held])
    drawn = 0 if estimate.resampled is None else survey.settings.resamples
    parts = [
        paragraph(f"{estimate.law.formula}, fitted to {fit.runs} runs."),
        paragraph(
            f"Objective {fit.objective:.6e}: the sum of Huber losses of the errors, delta {fit.delta:g}. "
            f"{fit.reached} of {fit.starts} starts came within 0.1 % of it. Scatter of a run: {_noise(law)}."
        ),
        table(["constant", "value", f"{level:g} % of {drawn} resamples", "by profile"], rows),
        *_correlations(law),
    ]
    figure = plots.parametric(
        survey.runs,
        fit,
        sound(estimate.resampled),
        title=estimate.law.formula,
        unit=unit,
        level=level,
        extrapolate=compute,
    )
    if isinstance(estimate.law, Frontier):
        parts.append(
            picture(
                figure,
                "Left: runs by compute and loss, over the loss of the best size. Right: the same runs by size; "
                "thin lines join equal losses, the thick one is the frontier, with its band.",
            )
        )
        fan = plots.fan(survey.runs, estimate, unit=unit, level=level, extrapolate=compute)
        parts.append(picture(fan, "The fit's own error is dark, where one more run would end is pale."))
    else:
        parts.append(picture(figure, "What the law says of each run against what it gave: on the line, they agree."))
    parts.append(
        picture(
            plots.residuals(survey.runs, estimate),
            "A trend means that the law lacks something; points far out are wild runs. Shaded: the noise of a run.",
        )
    )
    if law.profiles:
        decided = law.decided.get(compute[0], {})
        parts.append(
            picture(
                plots.profiles({**law.profiles, **decided}, level=level),
                f"Constants, and decisions at {compute[0]:.4g} FLOPs. Each is held away from its best value and all "
                "else fitted anew; it lies where the curve is below the dashed line. A flat curve is a constant that "
                "these runs hardly determine.",
            )
        )
    return parts


def _correlations(law: Study) -> list[str]:
    if not np.isfinite(law.correlations).all():
        return []
    names = law.fitted.space.free
    rows = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, law.correlations, strict=True)]
    strongest = np.abs(law.correlations - np.eye(len(names))).max()
    about = (
        f"Correlations of the constants: up to {strongest:.3f}. Near one, two constants stand for one another: compare "
        "fits by exponents and by what they predict."
    )
    return [paragraph(about), table(["", *names], rows)]


def _held_out(survey: Survey, unit: str) -> list[str]:
    if not survey.held_out:
        return []
    rows: list[list[Cell]] = []
    for name, each in survey.held_out.items():
        score = each.score
        inside = "" if score.inside is None else f"{score.inside} of {score.runs}"
        rows.append([name, f"{100 * score.error:.2f} %", f"{100 * score.worst:+.2f} %", inside])
    best, first = next(iter(survey.held_out.items()))
    low, high = (f"{v:.3g}" for v in first.score.flops)
    spent = low if low == high else f"{low} to {high}"
    law = first.estimate.law
    inputs = [survey.runs[name] for name in law.reads]
    figure = plots.held_out(survey.runs[law.target], first.estimate, inputs, first.held, unit=unit)
    return [
        section(
            "The largest budget held out",
            [
                paragraph(
                    f"Laws fitted without the {first.score.runs} runs of {spent} FLOPs, which they then "
                    "predict. This, and not how well a law fits what it has seen, tells laws apart."
                ),
                table(["law", "root mean square error", "worst", "inside their 90 % interval"], rows),
                picture(figure, f"{best}: the interval of a held-out run should cross the line."),
            ],
        )
    ]


def _isoflop(survey: Survey, found: Isoflop, compute: Sequence[float], unit: str) -> list[str]:
    rows: list[list[Cell]] = []
    for c in found.fit.curves:
        fate = "" if c in found.fit.used else "left out: its minimum is at an edge or does not exist"
        below, above = c.beside
        sizes = f"{below} below, {above} above"
        rows.append(
            [f"{c.budget:.4g}", str(len(c.N)), sizes, _number(c.n_opt), _number(c.d_opt), _number(c.loss_opt), fate]
        )
    parts = [
        paragraph(f"The size of least loss at each budget, by {found.fit.interpolation.name} through its runs."),
        table(["C (FLOPs)", "runs", "sizes beside the minimum", "N", "D", "loss", ""], rows),
    ]
    if found.bias is not None:
        parts.append(
            paragraph(
                f"If the runs follow the law of approach 3, this estimator is off by {found.bias.a:+.4f} in a and "
                f"{found.bias.b:+.4f} in b on these very sizes and tokens, without any noise (arXiv 2603.22339)."
            )
        )
    figure = plots.isoflop(found.fit, found.draws, unit=unit, level=survey.settings.level, extrapolate=compute)
    parts.append(picture(figure, "Stars are minima; a hollow one lies outside its runs and is left out."))
    return parts


def _envelope(survey: Survey, found: Envelope, compute: Sequence[float], unit: str) -> list[str]:
    best = found.fit.best
    figure = plots.envelope(
        found.fit, found.draws, title=f"The {found.name}", unit=unit, level=survey.settings.level, extrapolate=compute
    )
    return [
        paragraph(
            f"{best.sizes} sizes are the best at some compute from {best.C[0]:.3g} to {best.C[-1]:.3g} FLOPs. Loss "
            "inside a cosine schedule is no final loss: believe this of runs, or points, that had decayed."
        ),
        picture(figure, "The least loss reached at each compute, and sizes and tokens of the runs that reached it."),
    ]


def _rates(runs: Runs) -> list[str]:
    if "learning_rate" not in runs or "batch_size" not in runs:
        return []
    figure = plots.rates(runs)
    if figure is None:
        return []
    return [
        section(
            "Learning rates and batches",
            [
                picture(
                    figure,
                    "Loss over the least of a panel: lines at 0.1, 0.25, 0.5, 1, 2 and 4 percent. A star at the edge "
                    "means that the grid ends too early.",
                )
            ],
        )
    ]


def _records(runs: Runs) -> str:
    names = [name for name in COLUMNS if name in runs]
    order = np.lexsort((runs["params"], runs["flops"]))[:RECORDS]
    rows = [[_number(runs[name][i]) for name in names] for i in order]
    count = len(runs["loss"])
    summary = f"{count} runs" if count <= RECORDS else f"the first {RECORDS} of {count} runs"
    return folded(f"{summary}, by compute", table(names, rows))


def _noise(law: Study) -> str:
    noise = law.estimate.noise
    return f"{100 * noise:.2g} %" if law.estimate.law.residual == "log" else f"{noise:.3g}"


def _between(value: float, low: float, high: float) -> Cell:
    return _number(value) if not np.isfinite(low + high) else (_number(value), f"{_number(low)} ... {_number(high)}")


def _number(value: object) -> str:
    if not isinstance(value, int | float | np.number):
        return str(value)
    return "-" if not np.isfinite(value) else f"{value:.4g}"
