"""Fit a scaling law to training runs and say how large a model to train, on how many tokens, at a given
compute.

    python -m scaling.fit RUNS.csv                       parametric fit (approach 3), with a bootstrap
    python -m scaling.fit RUNS.csv --law=kaplan          the same with another law
    python -m scaling.fit RUNS.csv --approach=2          isoFLOP parabolas (approach 2)
    python -m scaling.fit runs.jsonl --compute=1e21,1e22 --bootstrap=1000
    python -m scaling.fit RUNS.csv --columns=loss=c4_loss,budget=flop_budget --where=dataset=c4,finished=true

RUNS is a table: CSV with a header (commas, semicolons or tabs), JSON lines as a sweep writes them, a JSON array,
or Parquet; compressed or not. One finished training run a row, with columns `params`, `loss` (nats per token) and
`tokens` or `flops` (either is made from the other by C = 6 N D); approach 2 also reads `budget`. Other columns are
ignored. Prints the fit, and writes fit.json and fit.png into --out.

Which approach? Approach 3 takes runs of any shape, and gives the floor E and losses off the optimum. Approach
2 takes groups of runs that share a compute budget, and assumes less. Where both apply, disagreement measures
what neither interval shows.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from lm.commands import cli
from lm.core.errors import UserError, nearest

from . import approach2, approach3, plots, report
from .laws import LAWS
from .records import Runs, read_runs

USAGE = "RUNS.csv|RUNS.jsonl|RUNS.parquet [--approach=2] [--out=DIR]"

FEWEST = 10  # resamples of which percentiles are taken


def define_flags() -> flags.FlagValues:
    """A set of its own, so that several command lines can be imported into one process."""
    f = flags.FlagValues()
    one_of, names, integer, number = (
        flags.DEFINE_enum,
        flags.DEFINE_list,
        flags.DEFINE_integer,
        flags.DEFINE_float,
    )
    one_of("approach", "3", ["2", "3"], "2: isoFLOP parabolas; 3: parametric law.", flag_values=f)
    laws = "; ".join(f"{name}: {law.formula}" for name, law in LAWS.items())
    one_of("law", "chinchilla", list(LAWS), f"Approach 3: {laws}.", flag_values=f)
    names("columns", [], "Our names for the file's columns: loss=c4_loss,budget=flop_budget.", flag_values=f)
    conditions = "NAME (neither empty, zero nor false), NAME=VALUE, NAME!=VALUE (true, false; null: empty)"
    names("where", [], f"Keep rows that pass every condition: {conditions}.", flag_values=f)
    names("compute", [], "FLOPs to plan for (default: those of the largest run, 10x, 100x).", flag_values=f)
    integer("bootstrap", 100, "Resamples of the runs for the intervals, 10 or more; 0: none.", 0, flag_values=f)
    number("interval", 95.0, "Percent of the resamples that an interval holds.", 1.0, 99.9, flag_values=f)
    grouped = "Approach 3: column that names a row's run, when runs have several rows; resampled together."
    flags.DEFINE_string("run", "", grouped, flag_values=f)
    kink = "Approach 3: error in log loss where Huber turns from squared to absolute."
    number("delta", 1e-3, kink, 1e-12, flag_values=f)
    integer("starts", 128, "Approach 3: random starts.", 1, flag_values=f)
    integer("nearest", 0, "Approach 2: fit only so many runs around each best one; 0: all.", 0, flag_values=f)
    edges = "Approach 2: keep budgets whose minimum lies outside their runs (extrapolated)."
    flags.DEFINE_bool("keep_edges", False, edges, flag_values=f)
    integer("seed", 0, "Of the random starts and resamples.", 0, flag_values=f)
    out = "Directory for fit.json and fit.png, made if absent; empty: write nothing."
    flags.DEFINE_string("out", ".", out, flag_values=f)
    return f


def main(argv: Sequence[str] | None = None) -> None:
    args = define_flags()

    def fit(rest: list[str]) -> None:
        _, *paths = rest
        if len(paths) != 1:
            raise UserError(f"give one file of runs, not {len(paths)}; usage: python -m scaling.fit {USAGE}")
        if 0 < args.bootstrap < FEWEST:
            raise UserError(f"--bootstrap={args.bootstrap} resamples give no intervals: give 0, or {FEWEST} or more")
        path = Path(paths[0]).expanduser()
        odd: list[str] = []
        columns = dict(_renaming(pair) for pair in args.columns)
        runs = read_runs(path, columns=columns, where=args.where, tell=odd.append)
        found, figure = (_parametric if args.approach == "3" else _isoflop)(runs, path.name, args)
        found["notes"][:0] = odd
        print(report.text(found))
        if args.out:
            _write(found, figure, Path(args.out))

    cli.run(fit, arguments=99, usage=USAGE, flag_values=args, argv=argv, own_code=False)


def _parametric(runs: Runs, name: str, args: flags.FlagValues) -> tuple[report.Report, Figure]:
    law = LAWS[args.law]
    for column in law.reads:
        if column not in runs:
            raise UserError(
                f"law {args.law} reads the column {column!r}, which {name} lacks{nearest(column, runs)}: rename one "
                f"with --columns={column}=NAME"
            )
    inputs, loss = [runs[column] for column in law.reads], runs["loss"]
    nominal = 6 * runs["params"] * runs["tokens"]
    compute = _compute(args.compute, nominal.max())
    fitted = approach3.fit(law, inputs, loss, delta=args.delta, starts=args.starts, seed=args.seed)
    resampled = None
    if args.run and args.run not in runs:
        raise UserError(f"--run={args.run}: {name} has no such column{nearest(args.run, runs)}")
    if args.bootstrap:
        groups = runs[args.run] if args.run else None
        resampled = approach3.bootstrap(inputs, loss, fitted, resamples=args.bootstrap, groups=groups, seed=args.seed)
    found = report.parametric(fitted, resampled, compute, level=args.interval, source=name)
    found["notes"] += report.doubts_of_law(fitted.law, inputs, loss)
    if args.bootstrap and resampled is None:
        found["notes"].append(approach3.nothing_free(law))
    counted = float(np.median(runs["flops"] / nominal))
    if abs(counted - 1) > 0.05:
        found["notes"].append(f"the median run's flops are {counted:.3g} x 6 N D; sizes below are for C = 6 N D")
    frontiers = None if resampled is None else report.sound(resampled)
    return found, plots.parametric(
        runs,
        fitted,
        frontiers,
        title=f"{name}: {fitted.law.formula}",
        unit=_unit(runs),
        level=args.interval,
        extrapolate=compute,
    )


def _isoflop(runs: Runs, name: str, args: flags.FlagValues) -> tuple[report.Report, Figure]:
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
    fitted = approach2.fit(*data, nearest=args.nearest, keep_edges=args.keep_edges)
    resampled = approach2.bootstrap(fitted, resamples=args.bootstrap, seed=args.seed) if args.bootstrap else None
    found = report.isoflop(fitted, resampled, compute, level=args.interval, source=name)
    if args.bootstrap and resampled is None:
        found["notes"].append(approach2.NOTHING_FREE)
    elif resampled is not None and (lost := args.bootstrap - np.size(resampled[0].exponent)):
        found["notes"].append(f"{lost} of {args.bootstrap} resamples have fewer than two minima and are left out")
    if not kept.all():
        found["notes"].append(f"{(~kept).sum()} runs have no budget and are left out")
    title = f"{name}: isoFLOP profiles"
    return found, plots.isoflop(
        fitted, resampled, title=title, unit=_unit(runs), level=args.interval, extrapolate=compute
    )


def _write(found: report.Report, figure: Figure, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "fit.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        plots.save(figure, out / "fit.png")
    except OSError as e:
        raise UserError(f"--out={out}: cannot write there ({e.strerror}); name another directory") from e
    print(f"\nwrote {out / 'fit.json'} and {out / 'fit.png'}")


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


def _renaming(pair: str) -> tuple[str, str]:
    ours, _, theirs = pair.partition("=")
    if not ours or not theirs:
        raise UserError(f"--columns={pair}: write OURS=THEIRS, for example loss=c4_loss")
    return ours, theirs


def _unit(runs: Runs) -> str:
    return str(runs["loss_unit"][0]) if "loss_unit" in runs else "nats/token"


if __name__ == "__main__":
    main()
