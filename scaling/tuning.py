"""What was best among runs that differ in learning rate and batch alone: from grids to laws of the best.

    python -m scaling.tuning --runs=RUNS.csv --best=surface --out=best.csv
    python -m scaling.fit --runs=best.csv --law=rate-of-size-and-data

The runs of one cell share size and data. Three estimators of a cell's best, which the papers use and which disagree:
exponents of the best learning rate move by a tenth from one to another on the same runs (Step Law's), so fit them all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from numpy.typing import NDArray

from lm.commands import cli
from lm.core.errors import UserError

from .records import Runs, read_runs, renamings
from .tables import write_csv

USAGE = "--runs=RUNS.csv --out=BEST.csv [--best=lowest|near|surface]"

CELL = ("params", "tokens")
KNOBS = ("learning_rate", "batch_tokens")
WITHIN_SURFACE = 0.03  # of a cell's least loss: further away a loss is no quadratic of log knobs
WITHIN_NEAR = 0.0025  # DeepSeek's (arXiv 2401.02954)


def lowest(runs: Runs, cell: Sequence[str] = CELL) -> Runs:
    """The run of least loss of each cell: unbiased by any form, as coarse as the grid, and lucky. Also what to do with
    several learning rates before any law of loss is fitted."""
    return _rows(runs, [rows[np.argmin(runs["loss"][rows])] for rows in _cells(runs, cell)])


def near(runs: Runs, cell: Sequence[str] = CELL, within: float = WITHIN_NEAR) -> Runs:
    """All runs within a share of the least loss of their cell, each a row of its own (DeepSeek LLM 2024): what is as
    good as the best counts as best."""
    kept = [rows[runs["loss"][rows] <= runs["loss"][rows].min() * (1 + within)] for rows in _cells(runs, cell)]
    return _rows(runs, np.sort(np.concatenate(kept)))


def surface(
    runs: Runs, cell: Sequence[str] = CELL, knobs: Sequence[str] = KNOBS, within: float = WITHIN_SURFACE
) -> Runs:
    """Of each cell, the minimum of a quadratic of the log knobs through the runs within a share of its least loss (by
    least squares): one row with the cell's columns, the knobs and the loss there. Knobs that do not vary are left out.

    Cells without a minimum, or too few runs, have no row. Raises `UserError` where that leaves none."""
    for name in knobs:
        if name in runs and not (runs[name].dtype.kind == "f" and np.all(runs[name] > 0)):  # False for nan
            raise UserError(f"the runs' {name} are not all positive numbers; mend the column or leave rows out")
    varying = [name for name in knobs if name in runs and len(np.unique(runs[name])) > 2]
    if not varying:
        raise UserError(f"no knob takes three values or more; give columns of {' and '.join(knobs)}")
    found = []
    for rows in _cells(runs, cell):
        best = rows[runs["loss"][rows] <= runs["loss"][rows].min() * (1 + within)]
        at = _minimum(np.log(np.stack([runs[name][best] for name in varying], axis=1)), runs["loss"][best])
        if at is not None:
            found.append([*(runs[name][rows[0]] for name in cell), *np.exp(at[:-1]), at[-1]])
    if not found:
        raise UserError(
            "no cell has a best learning rate and batch inside its grid; widen the grids, or take the lowest runs"
        )
    return dict(zip([*cell, *varying, "loss"], np.array(found, np.float64).T, strict=True))


ESTIMATORS: dict[str, Callable[[Runs], Runs]] = {"lowest": lowest, "near": near, "surface": surface}


def _minimum(x: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(where [knobs], how low) the quadratic through points x [runs, knobs] is least; None: nowhere."""
    knobs = x.shape[1]
    upper = np.triu_indices(knobs)
    mean = x.mean(axis=0)
    centred = x - mean
    basis = np.concatenate(
        [np.ones((len(x), 1)), centred, (centred[:, :, None] * centred[:, None, :])[:, *upper]], axis=1
    )
    if len(x) <= basis.shape[1] or np.linalg.matrix_rank(basis) < basis.shape[1]:
        return None
    constants, *_ = np.linalg.lstsq(basis, loss)
    slope, curvature = constants[1 : 1 + knobs], np.zeros((knobs, knobs))
    curvature[upper] = constants[1 + knobs :]
    curvature = curvature + curvature.T
    if np.linalg.eigvalsh(curvature).min() <= 0:
        return None
    step = np.linalg.solve(curvature, -slope)
    return np.append(mean + step, constants[0] + slope @ step / 2)


def _cells(runs: Runs, cell: Sequence[str]) -> list[NDArray[np.intp]]:
    """The rows of each cell."""
    for name in cell:
        if name not in runs:
            raise UserError(f"the runs have no column {name!r}, by which those of one cell are told")
    _, which = np.unique(np.stack([runs[name] for name in cell], axis=1), axis=0, return_inverse=True)
    return [np.flatnonzero(which.reshape(-1) == i) for i in range(which.max() + 1)]


def _rows(runs: Runs, rows: Sequence[int] | NDArray[np.intp]) -> Runs:
    return {name: values[np.asarray(rows)] for name, values in runs.items()}


def define_flags() -> flags.FlagValues:
    f = flags.FlagValues()
    flags.DEFINE_string("runs", "", "The table of runs: CSV, JSON lines, JSON array or Parquet.", flag_values=f)
    said = "lowest: the best run of each cell; near: all within 0.25 % of it; surface: the minimum of a quadratic."
    flags.DEFINE_enum("best", "surface", list(ESTIMATORS), said, flag_values=f)
    names = "Our names for the file's columns: learning_rate=lr,batch_tokens=batch."
    flags.DEFINE_list("columns", [], names, flag_values=f)
    flags.DEFINE_list("where", [], "Keep rows that pass every condition, as in scaling.fit.", flag_values=f)
    flags.DEFINE_string("out", "", "CSV to write: the best of each cell.", flag_values=f)
    return f


def main(argv: Sequence[str] | None = None) -> None:
    args = define_flags()

    def find(rest: list[str]) -> None:
        if not (args.runs and args.out) or len(rest) > 1:
            raise UserError(f"give --runs and --out, and nothing else: python -m scaling.tuning {USAGE}")
        runs = read_runs(Path(args.runs).expanduser(), columns=renamings(args.columns), where=args.where)
        best = ESTIMATORS[args.best](runs)
        write_csv(best, Path(args.out).expanduser())
        print(f"wrote {len(best['loss'])} rows, of {len(_cells(runs, CELL))} cells, to {args.out}")

    cli.run(find, arguments=99, usage=USAGE, flag_values=args, argv=argv, own_code=False)


if __name__ == "__main__":
    main()
