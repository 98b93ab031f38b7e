"""Run records: what a sweep writes (one JSON object a line, `runs.jsonl`) and what a fit reads (that, or any
CSV).

A record is a flat object. `RECORD` lists the keys every record has; a sweep adds its own (budget, seed, shape
and optimizer knobs ...), and readers ignore what they do not use.
"""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.core.errors import UserError, nearest

from .laws import FLOPS_PER_PARAM_TOKEN

RECORD = {
    "params": "parameters, of which one token meets all (mixture of experts: the active ones)",
    "tokens": "training tokens seen, repeats counted",
    "flops": "training FLOPs",
    "flops_convention": "how they were counted: '6ND', 'jaxpr' ...",
    "loss": "final held-out loss, or null for a run that diverged",
    "loss_unit": "'nats/token' or 'nats/byte'",
}
POSITIVE = ("params", "tokens", "flops", "loss")
UNIFORM = ("loss_unit", "flops_convention")  # values that cannot be mixed in one fit

Runs = dict[str, np.ndarray]
Row = tuple[int, dict[str, Any]]  # (line number in the file, cells)


def append_run(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append one record to a JSON-lines file in a single write. Raises `UserError` for a key of `RECORD`
    missing, or a number that JSON cannot hold (a diverged run has `loss` None, not nan)."""
    missing = [key for key in RECORD if key not in record]
    if missing:
        raise UserError(
            f"run record lacks {missing[0]!r} ({RECORD[missing[0]]}); every record needs {', '.join(RECORD)}"
        )
    for key, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"run record has {key} = {value}; write None for a value that does not exist")
    with open(path, "a", encoding="utf-8") as f:
        f.write(json.dumps(dict(record)) + "\n")


def read_runs(
    path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None, where: Sequence[str] = ()
) -> Runs:
    """Read runs from .csv or .jsonl into columns of one length: float64, or str where a cell is not a number.

    `columns` maps our names to the file's ({"loss": "loss_c4_val"}); `where` keeps the rows that pass every
    condition: "name" (neither empty nor zero), "name=value" or "name!=value". Of `tokens` and `flops` one may
    be absent and is then made from C = 6 N D. An empty number is nan, and an error in `params`, `tokens`,
    `flops` or `loss`.

    Raises `UserError` for a missing file, a malformed line, a missing column, a value that is not a positive
    number, runs whose loss units or FLOP conventions differ, or no rows left.
    """
    path = Path(path)
    rows = _read_rows(path)
    if not rows:
        raise UserError(f"{path} has no runs; it needs one row for each training run")
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    for ours, theirs in (columns or {}).items():
        if theirs not in names:
            raise UserError(f"{path} has no column {theirs!r} to use as {ours!r}{nearest(theirs, names)}")
        for _, cells in rows:
            cells[ours] = cells.get(theirs)
    names = list(dict.fromkeys([*names, *(columns or {})]))
    for condition in where:
        rows = _filter(rows, condition, names, path)
    for need in ("params", "loss"):
        if need not in names:
            remedy = f"rename one with --columns={need}=NAME{nearest(need, names)}"
            raise UserError(f"{path} has no column {need!r}; {remedy}")
    if "tokens" not in names and "flops" not in names:
        remedy = f"rename one with --columns=tokens=NAME{nearest('tokens', names)}"
        raise UserError(f"{path} has neither 'tokens' nor 'flops'; {remedy}")
    for name in POSITIVE:
        if name in names:
            _check_positive(rows, name, path)
    runs = {name: _column([cells.get(name) for _, cells in rows]) for name in names}
    for name in UNIFORM:
        if name in runs and len(kinds := sorted({str(v) for v in runs[name]})) > 1:
            raise UserError(
                f"{path} mixes {name} {' and '.join(kinds)}, which cannot be fitted together; "
                f"keep one with --where={name}={kinds[0]}"
            )
    if "tokens" not in runs:
        runs["tokens"] = runs["flops"] / (FLOPS_PER_PARAM_TOKEN * runs["params"])
    if "flops" not in runs:
        runs["flops"] = FLOPS_PER_PARAM_TOKEN * runs["params"] * runs["tokens"]
    return runs


def _read_rows(path: Path) -> list[Row]:
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise UserError(f"{path} is neither .csv nor .jsonl; runs are read from those two formats")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no file {path}; give the CSV or JSON-lines file of the runs") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read {path} as text: {e}") from e
    return readers[path.suffix](text, path)


def _read_csv(text: str, path: Path) -> list[Row]:
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    rows: list[Row] = []
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{path} line {reader.line_num} has {len(cells)} cells where the header has {len(header)}; "
                "mend or remove the line"
            )
        rows.append((reader.line_num, dict(zip(header, map(_cell, cells), strict=True))))
    return rows


def _cell(text: str) -> float | str | None:
    text = text.strip()
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _read_jsonl(text: str, path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as e:
            raise UserError(f"{path} line {number} is not JSON ({e.msg}); mend or remove the line") from e
        if not isinstance(record, dict):
            raise UserError(f"{path} line {number} is a JSON {type(record).__name__}; each line must be one object")
        rows.append((number, {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in record.items()}))
    return rows


def _filter(rows: list[Row], condition: str, names: list[str], path: Path) -> list[Row]:
    name, _, wanted = condition.partition("=")
    negate, name = name.endswith("!"), name.removesuffix("!")
    if name not in names:
        raise UserError(f"--where={condition}: {path} has no column {name!r}{nearest(name, names)}")
    if "=" in condition:
        kept = [row for row in rows if (row[1].get(name) == _cell(wanted)) != negate]
    else:
        kept = [row for row in rows if row[1].get(name)]  # neither empty nor zero
    if not kept:
        seen = sorted({str(cells.get(name)) for _, cells in rows})
        shown = ", ".join(seen[:8]) + (" ..." if len(seen) > 8 else "")
        raise UserError(f"--where={condition} keeps no run; {name} is one of {shown}")
    return kept


def _check_positive(rows: list[Row], name: str, path: Path) -> None:
    for line, cells in rows:
        value = cells.get(name)
        if not isinstance(value, int | float) or not (0 < value < math.inf):
            shown = "empty" if value is None else repr(value)
            raise UserError(
                f"{path} line {line}: {name} is {shown}, not a positive number; "
                "mend the row or leave it out with --where"
            )


def _column(values: list[Any]) -> np.ndarray:
    if all(v is None or isinstance(v, int | float) for v in values):
        return np.array([math.nan if v is None else v for v in values], np.float64)
    return np.array(["" if v is None else str(v) for v in values])
