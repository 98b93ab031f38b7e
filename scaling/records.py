"""Run records: what a sweep writes (one JSON object a line, `runs.jsonl`) and what a fit reads (that, or any
table).

A record is a flat object. `RECORD` lists the keys every record has, beside the number of its format; a sweep adds those
of `scaling.swept.SWEPT` (budget, seed, shape and optimizer knobs ...), and readers ignore what they do not use.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lm.core.errors import UserError, nearest
from lm.core.formats import KEY, format_of
from lm.core.formats import RECORD as FORMAT

from .laws import FLOPS_PER_PARAM_TOKEN
from .numbers import THOUSANDS, number_of, numbers_of
from .tables import BOOLEANS, Row, read_rows

with contextlib.suppress(ImportError):  # Windows has none
    import fcntl


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

MADE_FROM = {  # by C = 6 N D
    "tokens": ("params", "flops"),
    "flops": ("params", "tokens"),
    "params": ("tokens", "flops"),
}
SMALL = {"params": 1e4, "tokens": 1e6}  # largest of a table, below which they are hardly counted one by one

Runs = dict[str, np.ndarray]
Tell = Callable[[str], None]


def append_run(path: str | os.PathLike[str], record: Mapping[str, Any], once: str = "") -> None:
    """Append one record to a JSON-lines file in a single write; where `once` names a key, only if the file has no
    result of the same key (a record whose `failure` is null). A last line that a kill cut short is dropped.

    Raises `UserError` for a key of `RECORD` missing, or a number that JSON cannot hold (a diverged run has `loss` None,
    not nan)."""
    missing = [key for key in RECORD if key not in record]
    if missing:
        raise UserError(
            f"run record lacks {missing[0]!r} ({RECORD[missing[0]]}); every record needs {', '.join(RECORD)}"
        )
    for key, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"run record has {key} = {value}; write None for a value that does not exist")
    with open(path, "ab+") as f, locked(f):
        f.seek(0)
        *lines, rest = f.read().split(b"\n")
        if once and any(r[once] == record[once] for r in map(json.loads, lines) if r.get("failure") is None):
            return
        if rest:
            f.truncate(f.tell() - len(rest))
        f.write((json.dumps({KEY: FORMAT.number, **record}) + "\n").encode())
        f.flush()
        os.fsync(f.fileno())


@contextlib.contextmanager
def locked(file: IO[bytes]) -> Iterator[None]:
    """Hold a file against other processes that ask so; where the file system has no locks, a single write has to do."""
    with contextlib.suppress(NameError, OSError):
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, by a kill too
    yield


def unsaid(note: str) -> None:
    """The `tell` that reports nothing."""


def renamings(pairs: Sequence[str]) -> dict[str, str]:
    """What `--columns` says: {ours: theirs}."""
    found = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise UserError(
                f"--columns={pair}: write OURS=THEIRS, or OURS=THEIRS*NUMBER from another unit, for example "
                "loss=c4_loss,params=billions*1e9"
            )
        found[ours] = theirs
    return found


def read_runs(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    needs: Sequence[str] = ("params", "tokens", "loss"),
    tell: Tell = unsaid,
) -> Runs:
    """Read the runs of a table (see `scaling.tables`) into columns of one length: float64, or str where a cell is
    neither a number nor a boolean.

    `columns` maps our names to the file's ({"loss": "loss_c4_val", "params": "billions*1e9"}); `where` keeps the rows
    that pass every condition: "name" (neither empty, zero nor false), "name=value" or "name!=value", where a value may
    be a text, a number, true, false, or null for an empty cell. `needs` are columns that must be there and hold
    numbers. Of `params`, `tokens` and `flops` one may be absent and is then made from C = 6 N D. An empty number
    elsewhere is nan, and an error in `params`, `tokens`, `flops` or `loss`. `tell` gets lines about what is odd, but no
    error.

    Raises `UserError` for a missing file, a malformed line, a missing column, a value that is not a positive
    number, runs whose loss units or FLOP conventions differ, or no rows left.
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path} has no runs; it needs one row for each training run")
    for at, cells in rows:
        if cells.keys() >= RECORD.keys() and type(cells.get(KEY)) is int:  # a record of ours, no table's own column
            format_of(cells, FORMAT, f"{path} {at}")
            del cells[KEY]
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    factors = {}
    for ours, given in (columns or {}).items():
        theirs, factors[ours] = _unit_of(given, names)
        if theirs not in names:
            raise UserError(f"{path} has no column {theirs!r} to use as {ours!r}{nearest(theirs, names)}")
        for _, cells in rows:
            cells[ours] = cells.get(theirs)
    names = list(dict.fromkeys([*names, *(columns or {})]))
    for name in names:
        if name in POSITIVE or name in needs or factors.get(name, 1.0) != 1.0:
            _read_numbers(rows, name, factors.get(name, 1.0))
    for condition in where:
        rows = _filter(rows, condition, names, path, tell)
    for need in needs:
        if need not in names and not set(MADE_FROM.get(need, (need,))) <= set(names):
            remedy = f"rename one with --columns={need}=NAME{nearest(need, names)}"
            either = MADE_FROM.get(need, ())[1:]
            lacks = f"neither {need!r} nor {either[0]!r}" if either else f"no column {need!r}"
            raise UserError(f"{path} has {lacks}; {remedy}")
    for name in names:
        if name in POSITIVE:
            _check_numbers(rows, name, path, lambda v: not isinstance(v, bool) and 0 < v < math.inf, "positive")
        elif name in needs:
            _check_numbers(rows, name, path, math.isfinite, "finite")
    runs = {name: _column([cells.get(name) for _, cells in rows]) for name in names}
    for name in UNIFORM:
        if name in runs and len(kinds := sorted({str(v) for v in runs[name]})) > 1:
            raise UserError(
                f"{path} mixes {name} {' and '.join(kinds)}, which cannot be fitted together; "
                f"keep one with --where={name}={kinds[0]}"
            )
    for made, other in (("tokens", "params"), ("params", "tokens")):
        if made not in runs and {other, "flops"} <= runs.keys():
            runs[made] = runs["flops"] / (FLOPS_PER_PARAM_TOKEN * runs[other])
    if "flops" not in runs and {"params", "tokens"} <= runs.keys():
        runs["flops"] = FLOPS_PER_PARAM_TOKEN * runs["params"] * runs["tokens"]
    _tell_units(runs, tell)
    _tell_copies(runs, [where for where, _ in rows], needs, tell)
    return runs


def _unit_of(given: str, names: Sequence[str]) -> tuple[str, float]:
    """The column that THEIRS*NUMBER names, and the factor."""
    theirs, _, factor = given.rpartition("*")
    number = number_of(factor)
    if given in names or not theirs or number is None:
        return given, 1.0
    return theirs.strip(), number


def _read_numbers(rows: list[Row], name: str, factor: float) -> None:
    """Texts that are numbers become those; what is none is left, and told where it matters."""
    texts = [(cells, cells[name]) for _, cells in rows if isinstance(cells.get(name), str)]
    for (cells, text), number in zip(texts, numbers_of([text for _, text in texts]), strict=True):
        cells[name] = text if number is None else number
    for _, cells in rows:
        if factor != 1.0 and isinstance(cells.get(name), int | float) and not isinstance(cells[name], bool):
            cells[name] *= factor


def _tell_units(runs: Runs, tell: Tell) -> None:
    for name, small in SMALL.items():
        if name in runs and (most := float(runs[name].max())) < small:
            tell(
                f"{name} are at most {most:g}: if that is in thousands, millions or billions, give the factor, as in "
                f"--columns={name}=NAME*1e9; FLOPs are 6 N D"
            )


def _filter(rows: list[Row], condition: str, names: list[str], path: Path, tell: Tell) -> list[Row]:
    name, _, wanted = condition.partition("=")
    negate, name = name.endswith("!"), name.removesuffix("!")
    if name not in names:
        raise UserError(f"--where={condition}: {path} has no column {name!r}{nearest(name, names)}")
    values = [cells.get(name) for _, cells in rows]
    if "=" in condition:
        hits = [_is(value, wanted) for value in values]
        if not any(hits):
            said = f"--where={condition} {'leaves out' if negate else 'keeps'} no run; {name} is one of {_seen(values)}"
            if not negate or not _could_be(wanted, values):
                raise UserError(said)
            tell(said)
        kept = [row for row, hit in zip(rows, hits, strict=True) if hit != negate]
    else:
        kept = [row for row, value in zip(rows, values, strict=True) if value and value == value]  # nan is empty too
    if not kept:
        raise UserError(f"--where={condition} keeps no run; {name} is one of {_seen(values)}")
    return kept


def _is(value: Any, wanted: str) -> bool:
    """Whether a cell is what a condition's text says, as a value of its own kind."""
    if value is None:
        return wanted in ("", "null")
    if isinstance(value, bool):
        return BOOLEANS.get(wanted.lower()) is value
    if isinstance(value, int | float):
        number = number_of(wanted)
        return number is not None and (value == number or (value != value and number != number))
    return str(value) == wanted


def _could_be(wanted: str, values: list[Any]) -> bool:
    """Whether a column might hold what a condition's text says, by the kind of its values."""
    if wanted in ("", "null") or any(isinstance(v, str) for v in values):
        return True
    kinds = {isinstance(v, bool) for v in values if v is not None}
    return (True in kinds and wanted.lower() in BOOLEANS) or (False in kinds and number_of(wanted) is not None)


def _seen(values: list[Any]) -> str:
    """Some of the values of a column, as a condition would say them."""
    seen = sorted({json.dumps(v) if isinstance(v, bool | None) else str(v) for v in values})
    return ", ".join(seen[:8]) + (" ..." if len(seen) > 8 else "")


def _tell_copies(runs: Runs, where: list[str], needs: Sequence[str], tell: Tell) -> None:
    """Rows with the same params, tokens and loss (what the fit needs), to the last digit, are one run that stands there
    twice."""
    first: dict[tuple[float, ...], str] = {}
    copies = []
    for i, key in enumerate(zip(*(runs[name] for name in needs), strict=True)):
        if first.setdefault(key, where[i]) != where[i]:
            copies.append(f"{where[i]} that of {first[key]}")
    if copies:
        tell(
            f"rows that repeat the {', '.join(needs[:-1])} and {needs[-1]} of another: {len(copies)} ({copies[0]}); "
            "they count twice, and make intervals too narrow"
        )


def _check_numbers(rows: list[Row], name: str, path: Path, good: Callable[[float], bool], kind: str) -> None:
    for where, cells in rows:
        value = cells.get(name)
        if not isinstance(value, int | float) or not good(value):  # true and false are one and zero, where that may be
            shown = "empty" if value is None else repr(value)
            out = name if value is None or value != value else f"{name}!={value}"
            remedy = f"leave out such rows with --where={out}"
            if isinstance(value, str) and THOUSANDS.fullmatch(value):
                remedy = "write it without its comma, which may set off thousands or decimals"
            raise UserError(f"{path} {where}: {name} is {shown}, not a {kind} number; {remedy}, or mend them")


def _column(values: list[Any]) -> np.ndarray:
    if all(v is None or isinstance(v, int | float) for v in values):
        return np.array([math.nan if v is None else v for v in values], np.float64)
    return np.array(["" if v is None else str(v) for v in values])
