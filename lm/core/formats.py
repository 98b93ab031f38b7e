"""Versions of the files we keep: a number per kind of file, written into it and raised when readers must notice.

A file without a number has format 0, from before formats were numbered. `docs/formats.md` says what is promised."""

from pathlib import Path
from typing import Any, NamedTuple

from lm.core.errors import UserError

KEY = "format"  # under which a JSON object has its number


class Format(NamedTuple):
    """A kind of file and its current format number, which is written; all numbers up to it can be read."""

    kind: str
    number: int


CHECKPOINT = Format("checkpoint", 3)  # meta of checkpoints/<step>, which stands for the other items too
RUN = Format("config.json of a run", 2)  # stands for the metrics.jsonl beside it too
SWEEP = Format("config.json of a sweep", 2)
RECORD = Format("run record", 1)  # a line of runs.jsonl
FIT = Format("fit of a scaling law", 1)
TOKEN_CACHE = Format("token cache", 4)


def format_of(saved: Any, kind: Format, where: str | Path) -> int:
    """The format number of a JSON object of this kind. Raises `UserError`, naming the file `where`, if it is newer than
    this version can read."""
    found = saved.get(KEY, 0) if isinstance(saved, dict) else 0
    if type(found) is not int or found < 0:
        raise UserError(f"{where}: {KEY}={found!r} of this {kind.kind} must be a number from 0 to {kind.number}")
    if found > kind.number:
        raise UserError(
            f"{where} is a {kind.kind} of format {found}, and this version reads formats up to {kind.number}: update "
            "(git pull, or install the version that wrote it)"
        )
    return found
