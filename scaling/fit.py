"""Fit a scaling law to training runs and say how large a model to train, on how many tokens, at a given
compute.

    python -m scaling.fit --runs=RUNS.csv                     parametric fit (approach 3) of Chinchilla's law
    python -m scaling.fit --runs=RUNS.csv --law=kaplan        the same with another law
    python -m scaling.fit --runs=RUNS.csv --law=chinchilla,kaplan,coupled      laws compared by held-out error
    python -m scaling.fit --runs=RUNS.csv --fix=E=1.8 --tie=alpha=beta         some constants held
    python -m scaling.fit --runs=RUNS.csv --approach=2        isoFLOP parabolas (approach 2; --interpolation=akima)
    python -m scaling.fit --runs=RUNS.csv --approach=1        envelope of all runs (approach 1; --best=hull)
    python -m scaling.fit --runs=RUNS.csv --report=report.html                 all approaches, as a page to show
    python -m scaling.fit --runs=runs.jsonl --compute=1e21,1e22 --bootstrap=1000
    python -m scaling.fit --runs=RUNS.csv --columns=loss=c4_loss,budget=flop_budget --where=dataset=c4,finished=true

RUNS is a table: CSV with a header (commas, semicolons or tabs), JSON lines as a sweep writes them, a JSON array, or
Parquet; compressed or not. One finished training run a row, with columns `loss` (nats per token) and two of `params`,
`tokens` and `flops` (the third is made by C = 6 N D); approach 2 also reads `budget`, and a law what its formula names.
Other columns are ignored. --columns=params=BILLIONS*1e9,loss=BITS*0.693147 brings other units to these. Prints the fit,
and writes fit.json and fit.png into --out.

Approach 3 minimises the sum of Huber losses of the error in log loss (or as the law says) from many starts, and says
how many ended there. Two intervals stand beside each constant and decision: the first of refits under random weights of
the runs, the second of the profile likelihood ("?" where it has no end). The largest runs are held out once and
predicted, which judges a law better than its fit does. Runs that hardly determine a law are refused without --force.

Which approach? Approach 3 takes runs of any shape, and gives the floor E and losses off the optimum. Approach
2 takes groups of runs that share a compute budget, and assumes less. Approach 1 takes training curves, or the final
losses of each size on several amounts of tokens. Where several apply, disagreement measures what no interval shows.
"""

import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from lm.commands import cli
from lm.core.errors import UserError, nearest

from . import approach1, approach2, approach3, engine, plots, report
from .interpolation import INTERPOLATIONS
from .laws import LAWS, Chinchilla
from .records import Runs, read_runs, renamings
from .report.page import render
from .survey import survey

USAGE = "--runs=RUNS.csv|RUNS.jsonl|RUNS.parquet [--approach=1|2|3] [--law=NAME] [--out=DIR]"

SIZES = ("params", "tokens", "loss")  # what approaches 1 and 2 read
Found = tuple[report.Report, Figure, Mapping[str, approach3.Study]]  # what an approach says, and what a page can use
FEWEST = 10  # resamples of which percentiles are taken
PAIRS = {
    "fix": "CONSTANT=VALUE, for example E=1.8",
    "tie": "CONSTANT=OTHER, for example alpha=beta",
}


def define_flags() -> flags.FlagValues:
    """A set of its own, so that several command lines can be imported into one process."""
    f = flags.FlagValues()
    table = "The table of runs: CSV, JSON lines, JSON array or Parquet, compressed or not."
    flags.DEFINE_string("runs", None, table, flag_values=f)
    one_of, names, integer, number = (
        flags.DEFINE_enum,
        flags.DEFINE_list,
        flags.DEFINE_integer,
        flags.DEFINE_float,
    )
    approaches = "1: envelope of all runs; 2: isoFLOP profiles; 3: parametric law."
    one_of("approach", "3", list(APPROACHES), approaches, flag_values=f)
    several = "Approach 3, one or more, compared by the error of held-out runs"
    names("law", ["chinchilla"], f"{several}; python -m scaling.laws lists them.", flag_values=f)
    names("fix", [], "Approach 3: constants that keep a value: E=1.8,A=400.", flag_values=f)
    names("tie", [], "Approach 3: constants that are equal to others: alpha=beta.", flag_values=f)
    held = (
        "Approach 3: largest budgets (column budget; else halvings of the largest compute) to predict unseen; 0: none."
    )
    integer("holdout", 1, held, 0, flag_values=f)
    renamed = (
        "Our names for the file's columns: loss=c4_loss,budget=flop_budget; params=billions*1e9 from another unit."
    )
    names("columns", [], renamed, flag_values=f)
    conditions = "NAME (neither empty, zero nor false), NAME=VALUE, NAME!=VALUE (true, false; null: empty)"
    names("where", [], f"Keep rows that pass every condition: {conditions}.", flag_values=f)
    names("compute", [], "FLOPs to plan for (default: those of the largest run, 10x, 100x).", flag_values=f)
    integer("bootstrap", 400, "Resamples of the runs for the intervals, 10 or more; 0: none.", 0, flag_values=f)
    number("interval", 95.0, "Percent of the resamples that an interval holds.", 1.0, 99.9, flag_values=f)
    grouped = "Approaches 1, 3: column that names a row's run, when runs have several rows; resampled together."
    flags.DEFINE_string("run", "", grouped, flag_values=f)
    kink = "Approach 3: error where Huber turns from squared to absolute; inf: least squares; not given: the law's own."
    force = "Fit even runs that hardly determine the constants."
    flags.DEFINE_bool("force", False, force, flag_values=f)
    number("delta", None, kink, 1e-12, flag_values=f)
    integer("starts", 128, "Approach 3: random starts.", 1, flag_values=f)
    best = "Approach 1: lowest of interpolated runs (without --run of sizes), or corners of the points' convex hull."
    one_of("best", "envelope", list(approach1.ESTIMATORS), best, flag_values=f)
    curve = "Approach 2: curve through the runs of a budget."
    one_of("interpolation", "parabola", list(INTERPOLATIONS), curve, flag_values=f)
    integer("nearest", 0, "Approach 2: fit only so many runs around each best one; 0: all.", 0, flag_values=f)
    edges = "Approach 2: keep budgets whose minimum lies outside their runs (extrapolated)."
    flags.DEFINE_bool("keep_edges", False, edges, flag_values=f)
    integer("seed", 0, "Of the random starts and resamples.", 0, flag_values=f)
    out = "Directory for fit.json and fit.png, made if absent; empty: write nothing."
    flags.DEFINE_string("out", ".", out, flag_values=f)
    page = "Also this page of HTML, to show to others: all approaches, held-out runs, doubts and pictures."
    flags.DEFINE_string("report", "", page, flag_values=f)
    return f


def main(argv: Sequence[str] | None = None) -> None:
    args = define_flags()

    def fit(rest: list[str]) -> None:
        if not args.runs or len(rest) > 1:
            also = f", not as {rest[1]}" if len(rest) > 1 else ""
            raise UserError(f"give the table of runs as --runs=FILE{also}; usage: python -m scaling.fit {USAGE}")
        if 0 < args.bootstrap < FEWEST:
            raise UserError(f"--bootstrap={args.bootstrap} resamples give no intervals: give 0, or {FEWEST} or more")
        for law in args.law:
            if law not in LAWS:
                raise UserError(f"--law={law}: no such law{nearest(law, LAWS)}; there are {', '.join(LAWS)}")
        if args.report and (Path(args.report).is_dir() or not Path(args.report).parent.is_dir()):
            raise UserError(f"--report={args.report}: name a file, report.html, in a folder that exists")
        path = Path(args.runs).expanduser()
        odd: list[str] = []
        columns = renamings(args.columns)
        needs = approach3.needs(args.law) if args.approach == "3" else SIZES
        if args.report:
            needs = list(dict.fromkeys([*needs, *SIZES]))
        runs = read_runs(path, columns=columns, where=args.where, needs=needs, tell=odd.append)
        found, figure, studies = APPROACHES[args.approach](runs, path.name, args)
        found["notes"][:0] = odd
        print(report.text(found))
        if args.out:
            _write(found, figure, Path(args.out))
        if args.report:
            _write_page(runs, path.name, args, ["scaling.fit", *(argv or sys.argv)[1:]], studies)

    cli.run(fit, arguments=1, usage=USAGE, flag_values=args, argv=argv, own_code=False)


def _settings(args: flags.FlagValues) -> approach3.Settings:
    return approach3.Settings(
        delta=args.delta,
        starts=args.starts,
        fixed={key: _number("fix", f"{key}={value}", value) for key, value in map(_pair_of("fix"), args.fix)},
        tied=dict(map(_pair_of("tie"), args.tie)),
        resamples=args.bootstrap,
        run=args.run,
        holdout=args.holdout,
        level=args.interval,
        seed=args.seed,
        force=args.force,
    )


def _parametric(runs: Runs, name: str, args: flags.FlagValues) -> Found:
    settings = _settings(args)
    largest = approach3.compute_of(runs)
    compute = _compute(args.compute, largest) if args.compute or math.isfinite(largest) else []
    for law in args.law:
        approach3.check_columns(LAWS[law], law, runs, name, settings)
    scores = approach3.compare(args.law, runs, settings) if len(args.law) > 1 else {}
    chosen = next(iter(scores or args.law))
    study = approach3.study(LAWS[chosen], runs, compute, settings)
    found = report.fitted_law(study, chosen, compute, level=args.interval, source=name, unit=_unit(runs))
    found["compared"] = report.compared(scores)
    figure = plots.parametric(
        runs,
        study.fitted,
        report.sound(study.estimate.resampled),
        title=f"{name}: {study.fitted.law.formula}",
        unit=_unit(runs),
        level=args.interval,
        extrapolate=compute,
    )
    return found, figure, {chosen: study}


def _envelope(runs: Runs, name: str, args: flags.FlagValues) -> Found:
    which = _named_runs(runs, name, args.run, "params")
    curves = approach1.curves_of(runs["params"], runs["tokens"], runs["loss"], runs["flops"], which)
    compute = _compute(args.compute, runs["flops"].max())
    fitted = approach1.fit(approach1.ESTIMATORS[args.best], curves)
    resampled = approach1.bootstrap(fitted, resamples=args.bootstrap, seed=args.seed) if args.bootstrap else None
    found = report.envelope(fitted, resampled, compute, level=args.interval, source=name)
    if args.bootstrap and resampled is None:
        found["notes"].append(approach1.NOTHING_FREE)
    elif resampled is not None and (lost := args.bootstrap - np.size(resampled.params.exponent)):
        found["notes"].append(f"{lost} of {args.bootstrap} resamples have fewer than three best sizes and are left out")
    title = f"{name}: {args.best} of all runs"
    figure = plots.envelope(fitted, resampled, title=title, unit=_unit(runs), level=args.interval, extrapolate=compute)
    return found, figure, {}


def _isoflop(runs: Runs, name: str, args: flags.FlagValues) -> Found:
    if "budget" not in runs:
        raise UserError(
            "approach 2 needs a column 'budget', the FLOPs that a group of runs shares; "
            f"rename one with --columns=budget=NAME{nearest('budget', runs)}"
        )
    if runs["budget"].dtype.kind != "f":
        raise UserError(f"column 'budget' of {name} holds {runs['budget'][0]!r}, not numbers; it must give FLOPs")
    kept = runs["budget"] > 0  # False for nan: a run outside the grid has an empty budget
    if not kept.any():
        raise UserError(f"no run of {name} has a positive 'budget'; mend the column or use --approach=3")
    data = [runs[key][kept] for key in ("params", "tokens", "loss", "budget")]
    compute = _compute(args.compute, data[-1].max())
    interpolation = INTERPOLATIONS[args.interpolation]
    fitted = approach2.fit(*data, interpolation=interpolation, nearest=args.nearest, keep_edges=args.keep_edges)
    resampled = approach2.bootstrap(fitted, resamples=args.bootstrap, seed=args.seed) if args.bootstrap else None
    law, why_not = _law_of(runs, args)
    bias = None if law is None else approach2.bias(fitted, law.predict)
    found = report.isoflop(fitted, resampled, compute, level=args.interval, source=name, bias=bias)
    if bias is None:
        found["notes"].append(f"the estimator's own bias is not known: {why_not}")
    if resampled is not None and (lost := args.bootstrap - np.size(resampled.params.exponent)):
        found["notes"].append(f"{lost} of {args.bootstrap} resamples have fewer than two minima and are left out")
    if not kept.all():
        found["notes"].append(f"{(~kept).sum()} runs have no budget and are left out")
    title = f"{name}: isoFLOP profiles"
    figure = plots.isoflop(fitted, resampled, title=title, unit=_unit(runs), level=args.interval, extrapolate=compute)
    return found, figure, {}


def _law_of(runs: Runs, args: flags.FlagValues) -> tuple[Chinchilla | None, str]:
    """The parametric law of the same runs, by which approach 2 judges itself, or why there is none."""
    try:
        inputs = [runs[column] for column in Chinchilla.reads]
        fitted = engine.fit(Chinchilla, inputs, runs["loss"], delta=args.delta, starts=args.starts, seed=args.seed)
    except UserError as e:
        return None, str(e)
    return fitted.law, "the law of approach 3 has no minimum near these runs"


def _named_runs(runs: Runs, name: str, column: str, default: str) -> np.ndarray:
    if column and column not in runs:
        raise UserError(f"--run={column}: {name} has no such column{nearest(column, runs)}")
    return runs[column or default]


def _write(found: report.Report, figure: Figure, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "fit.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        plots.save(figure, out / "fit.png")
    except OSError as e:
        raise UserError(f"--out={out}: cannot write there ({e.strerror}); name another directory") from e
    print(f"\nwrote {out / 'fit.json'} and {out / 'fit.png'}")


def _write_page(
    runs: Runs, name: str, args: flags.FlagValues, command: Sequence[str], studies: Mapping[str, approach3.Study]
) -> None:
    """All approaches, whichever was asked for (of approach 3 the `studies` are known): see `scaling.survey`."""
    compute = _compute(args.compute, approach3.compute_of(runs))
    found = survey(runs, args.law, compute, _settings(args), studies)
    again = shlex.join(["python", "-m", *command])
    try:
        Path(args.report).write_text(render(found, compute, source=name, command=again, unit=_unit(runs)), "utf-8")
    except OSError as e:
        raise UserError(f"--report={args.report}: cannot write there ({e.strerror}); name another file") from e
    print(f"wrote {args.report}")


def _compute(given: list[str], largest: float) -> list[float]:
    """Budgets to plan for: those `given`, else the largest of the runs and ten and a hundred times as
    much."""
    values = []
    for text in given:
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not 0 < values[-1] < math.inf:
            raise UserError(f"--compute={text}: give FLOPs as positive numbers, for example 1e21,1e22")
    return values or [float(largest * k) for k in (1, 10, 100)]


def _pair_of(flag: str) -> Callable[[str], tuple[str, str]]:
    def pair(text: str) -> tuple[str, str]:
        left, _, right = text.partition("=")
        if not left or not right:
            raise UserError(f"--{flag}={text}: write {PAIRS[flag]}")
        return left, right

    return pair


def _number(flag: str, text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--{flag}={text}: write {PAIRS[flag]}") from None


def _unit(runs: Runs) -> str:
    return str(runs["loss_unit"][0]) if "loss_unit" in runs else "nats/token"


APPROACHES = {"1": _envelope, "2": _isoflop, "3": _parametric}


if __name__ == "__main__":
    main()
