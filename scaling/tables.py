"""Tables of runs as rows of named cells, told by what a file holds: CSV (commas, semicolons or tabs between cells),
JSON (an object a line, or an array of them), Parquet. Text may begin with a byte order mark and be compressed, as the
files of a corpus are (`lm.data.compressed`).
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lm.core.errors import UserError
from lm.data.compressed import needs, open_bytes
from lm.data.plain import read_text

from .numbers import DECIMAL_COMMA, number_of

Cell = float | bool | str | None  # None: empty
Row = tuple[str, dict[str, Any]]  # where it stands in the file ("line 3"), and its cells

DIVIDERS = (",", ";", "\t")
BOOLEANS = {"true": True, "false": False}


def read_rows(path: Path) -> list[Row]:
    """Every row of a file. Raises `UserError` for a file that is missing, damaged or no table."""
    if not path.exists():
        raise UserError(f"no file {path}; give the CSV, JSON or Parquet file of the runs")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the CSV, JSON or Parquet file of the runs in it")
    with open_bytes(path) as file:
        start = file.read(4)
    if start == b"PAR1":
        return _parquet(path)
    text = "".join(read_text(path))
    return _json(text, path) if text.lstrip()[:1] in ("{", "[") else _csv(text, path)


def write_csv(columns: Mapping[str, Iterable[Any]], path: Path) -> None:
    """A file that `read_rows` reads back; an empty cell for nan. Raises `UserError` where it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow("" if isinstance(v, float) and v != v else v for v in row)
    except OSError as e:
        raise UserError(f"{path}: cannot write there ({e.strerror}); name another file") from e


def _csv(text: str, path: Path) -> list[Row]:
    csv.field_size_limit(sys.maxsize)
    divider = _divider(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider, strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        while header and not header[-1]:
            header.pop()
        if twice := [name for name, count in Counter(header).items() if count > 1]:
            raise UserError(f"{path} has two columns {twice[0]!r}; rename or remove one of them")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()
            if len(cells) != len(header):
                raise UserError(
                    f"{path} line {reader.line_num} has {len(cells)} cells where the header has {len(header)}; "
                    "mend or remove the line"
                )
            found = (_cell(cell) for cell in cells)
            rows.append((f"line {reader.line_num}", dict(zip(header, found, strict=True))))
    except csv.Error as e:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({e}); mend or remove the line") from e
    for name in header:
        _read_booleans(rows, name)
        if divider != ",":
            _read_decimals(rows, name)
    return rows


def _divider(text: str) -> str:
    """What stands between the names of the header most often."""
    header = text.lstrip().partition("\n")[0]
    return max(DIVIDERS, key=lambda divider: header.count(divider))


def _cell(text: str) -> Cell:
    text = text.strip()
    if not text:
        return None
    return text if (number := number_of(text)) is None else number


def _read_booleans(rows: list[Row], name: str) -> None:
    """A column that holds nothing but true and false (in any case) is one of booleans."""
    values = [cells[name] for _, cells in rows]
    if all(v is None or (isinstance(v, str) and v.lower() in BOOLEANS) for v in values):
        for _, cells in rows:
            if cells[name] is not None:
                cells[name] = BOOLEANS[cells[name].lower()]


def _read_decimals(rows: list[Row], name: str) -> None:
    """Commas of a column are decimal ones, as spreadsheets write them in much of the world, unless one of them can only
    stand between thousands."""
    texts = [cells[name] for _, cells in rows if isinstance(cells[name], str) and "," in cells[name]]
    if all(DECIMAL_COMMA.fullmatch(text) for text in texts):
        for _, cells in rows:
            if isinstance(cells[name], str) and "," in cells[name]:
                cells[name] = float(cells[name].replace(",", "."))


def _json(text: str, path: Path) -> list[Row]:
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as e:
            raise UserError(f"{path} line {e.lineno} is not JSON ({e.msg}); mend the line") from e
        return [_record(record, f"record {i}", path) for i, record in enumerate(records, 1)]
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # and at no other line breaks, which strings may hold
        if line.strip():
            try:
                rows.append(_record(json.loads(line), f"line {number}", path))
            except json.JSONDecodeError as e:
                raise UserError(f"{path} line {number} is not JSON ({e.msg}); mend or remove the line") from e
    return rows


def _record(record: Any, where: str, path: Path) -> Row:
    if not isinstance(record, dict):
        raise UserError(f"{path} {where} is a JSON {type(record).__name__}; each run must be one object")
    return where, {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in record.items()}


def _parquet(path: Path) -> list[Row]:
    arrow, module = needs("pyarrow", path), needs("pyarrow.parquet", path)
    try:
        records = module.read_table(path).to_pylist()
    except (arrow.ArrowInvalid, OSError) as e:
        raise UserError(f"{path} is no whole Parquet file ({' '.join(str(e).split())[:120]}); write it anew") from e
    plain = (bool, int, float, str, type(None))
    return [
        (f"row {i}", {k: v if isinstance(v, plain) else str(v) for k, v in record.items()})
        for i, record in enumerate(records, 1)
    ]


def write_parquet(rows: list[Row], path: Path) -> None:
    """Write rows as Parquet, a column for each name that one of them has. Raises `UserError` for a file that cannot be
    written, and for a column of numbers and texts, which Parquet has not."""
    arrow, module = needs("pyarrow", path), needs("pyarrow.parquet", path)
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    try:
        columns = {name: arrow.array([cells.get(name) for _, cells in rows]) for name in names}
        module.write_table(arrow.table(columns), path)
    except arrow.ArrowInvalid as e:
        raise UserError(f"{path} cannot hold these rows ({' '.join(str(e).split())[:120]})") from e
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; name another file") from e
