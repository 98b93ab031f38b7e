"""Records of some fields: JSON lines, JSON arrays, CSV, TSV, Parquet.

A field (or column) is given by its name; "meta.text" is the field text of the object meta. A record without it, or with
null, has None there; of a document that is no text, which the cache counts. A file with no such field at all is an
error, unless it is asked for with a question mark, as "input?".
"""

import csv
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lm.core.errors import UserError, nearest
from lm.data.compressed import Meter, needs, open_bytes
from lm.data.plain import decode, read_text

Load = Callable[[], Any]
Fields = Callable[[], dict[str, Any]]  # reads the fields of a record; where a record is only a text, each is that
Entry = tuple[int, str, Fields]  # number, file and line, fields
MISSING = object()
KNOB = "config.data.field"


class NoField(UserError):
    """A file without a field that is asked for. `knob`: what names that field, and can name another."""

    def __init__(self, found: str, field: str, rest: str = "", knob: str = KNOB) -> None:
        super().__init__(f"{found} set {knob}{rest}")
        self.found, self.field, self.rest = found, field, rest

    def named_by(self, knob: str) -> "NoField":
        return NoField(self.found, self.field, self.rest, knob)


def json_lines(path: Path, fields: tuple[str, ...], meter: Meter) -> Iterator[Entry]:
    """The records of a file with an object a line; only a wanted one is parsed."""
    return _entries(path, fields, _lines(path, meter))


def json_values(path: Path, fields: tuple[str, ...], meter: Meter) -> Iterator[Entry]:
    """The objects, or strings, of an array, or objects one after another."""
    return _entries(path, fields, _values(path, meter))


def _lines(path: Path, meter: Meter) -> Iterator[tuple[int, str, Load]]:
    offset = 0
    with open_bytes(path, meter) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and line != b"\xef\xbb\xbf\n":
                where = f"{path} line {number}"
                yield number, where, partial(_parsed, line, path, where, offset)
            offset += len(line)


def _parsed(line: bytes, path: Path, where: str, offset: int) -> dict:
    try:
        record = json.loads(decode(line, path, offset))
    except json.JSONDecodeError as e:
        raise UserError(f"{where} is not JSON ({e.msg} at column {e.colno})") from e
    except (RecursionError, ValueError) as e:
        raise _beyond(where, e) from e
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object but {type(record).__name__}; write one {{...}} a line")
    return record


def _values(path: Path, meter: Meter) -> Iterator[tuple[int, str, Load]]:
    buffer = _Buffer(path, read_text(path, meter))
    in_array = buffer.next() == "["
    if in_array:
        buffer.at += 1
    number = 0
    while (c := buffer.next()) not in ("", "]"):
        number += 1
        where = f"{path} record {number}"
        value = buffer.value(where)
        if not isinstance(value, dict | str):
            raise UserError(f"{where} is not a JSON object or string but {type(value).__name__}")
        yield number, where, partial(_same, value)
        if (c := buffer.next()) == ",":
            buffer.at += 1
        elif in_array and c not in ("]", ""):
            raise UserError(f"{where} is followed by {c!r}, not by a comma: the array is cut or damaged")
    if in_array and c == "":
        raise UserError(f"{path} ends within its array: it is truncated; copy it anew")
    if in_array:
        buffer.at += 1
    if rest := buffer.next():
        raise UserError(f"{path} goes on with {rest!r} after record {number}: give one array, or an object a line")


def _beyond(where: str, e: Exception) -> UserError:
    """The error for JSON beyond Python's limits: numbers of thousands of digits, thousands of nested brackets."""
    return UserError(f"{where} is nested too deeply" if isinstance(e, RecursionError) else f"{where}: {e}")


class _Buffer:
    """JSON text that holds only the value being read in memory."""

    def __init__(self, path: Path, pieces: Iterator[str]) -> None:
        self.path, self.text, self.at = path, "", 0
        self._pieces, self._decoder = pieces, json.JSONDecoder()

    def next(self) -> str:
        """Advance to the next character other than white space and return it; "" at the end."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def value(self, where: str) -> Any:
        """Read the value that starts here, and advance past it."""
        wanted = 0
        while True:
            try:
                value, self.at = self._decoder.raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as e:
                wanted = 2 * (len(self.text) - self.at)  # doubled, so that a long value is not parsed over and over
                grown = False
                while len(self.text) - self.at < wanted and self._more():
                    grown = True
                if not grown:
                    line = self.text[: e.pos].rpartition("\n")[2]
                    raise UserError(f"{where} is not JSON ({e.msg} at {line[-30:] + self.text[e.pos :][:20]!r})") from e
            except (RecursionError, ValueError) as e:
                raise _beyond(where, e) from e

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self.text, self.at = self.text[self.at :] + piece, 0
        return True


def _same(value: Any) -> Any:
    return value


def _entries(path: Path, fields: tuple[str, ...], records: Iterator[tuple[int, str, Load]]) -> Iterator[Entry]:
    first: dict | None = None
    unseen = [field for field in fields if not field.endswith("?")]  # in no record so far
    for number, where, load in records:
        if unseen:
            record = load()
            unseen = [f for f in unseen if isinstance(record, dict) and _field(record, f) is MISSING]
            first = first or (record if isinstance(record, dict) else None)
        yield number, where, partial(_loaded, load, fields)
    if first is not None and unseen:
        raise _no_field(path, unseen[0], first)


def _loaded(load: Load, fields: tuple[str, ...]) -> dict[str, Any]:
    record = load()
    if isinstance(record, str):
        return dict.fromkeys(fields, record)
    found = {name: _field(record, name) for name in (field.rstrip("?") for field in fields)}
    return {name: None if value is MISSING else value for name, value in found.items()}


def _field(record: dict, field: str) -> Any:
    if field in record:
        return record[field]
    value: Any = record
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def _no_field(path: Path, field: str, record: dict) -> UserError:
    wrapped = next((key for key, value in record.items() if isinstance(value, list) and value), None)
    if wrapped is not None and isinstance(record[wrapped][0], dict) and len(record) < 10:
        return UserError(
            f"{path} is an object whose {wrapped!r} holds {len(record[wrapped]):,} records: write these as lines "
            f"(jq -c '.{wrapped}[]' {path.name} > {path.stem}.jsonl)"
        )
    inner = [f"{key}.{name}" for key, value in record.items() if isinstance(value, dict) for name in value]
    return NoField(f"{path} has no field {field!r} in any record{_known(field, [*record, *inner])}", field)


def _known(field: str, names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:12])) + (" ..." if len(names) > 12 else "")
    close = nearest(field, names)
    did = close if close.startswith("; did you mean") else ";"
    return f"{did} it has {shown}:"


def text_of(value: Any, where: str, field: str) -> str:
    """The text of a record's field; "" if there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} is not text but {type(value).__name__}; name another with {KNOB}")
    return sound(value, where)


def sound(text: str, where: str) -> str:
    """The text, if it is one: JSON can spell half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"{where} holds half a surrogate pair ({text[e.start]!a}); repair it") from e
    return text


def parquet(path: Path, fields: tuple[str, ...], meter: Meter) -> Iterator[Entry]:
    """The rows of a Parquet file."""
    arrow, module = needs("pyarrow", path), needs("pyarrow.parquet", path)
    try:
        with module.ParquetFile(path) as file:
            columns = [c for field in fields if (c := _column(path, file.schema_arrow, field)) is not None]
            number, groups = 0, file.metadata.num_row_groups
            size = path.stat().st_size
            for group in range(groups):
                for batch in file.iter_batches(batch_size=1024, columns=sorted({*columns}), row_groups=[group]):
                    for row in range(batch.num_rows):
                        number += 1
                        yield number, f"{path} row {number}", partial(_row_of, batch, row, fields)
                meter.read += size // groups
    except arrow.ArrowInvalid as e:
        raise UserError(f"{path} is no whole Parquet file ({' '.join(str(e).split())[:120]})") from e
    except OSError as e:
        raise UserError(f"cannot read {path}: {' '.join(str(e).split())[:120]}") from e


def _row_of(batch: Any, row: int, fields: tuple[str, ...]) -> dict[str, Any]:
    return _loaded(lambda: {name: batch.column(name)[row].as_py() for name in batch.schema.names}, fields)


def _column(path: Path, schema: Any, field: str) -> str | None:
    """The column that holds a field; None for one that may be missing and is."""
    name = field.rstrip("?")
    column = name if name in schema.names else name.partition(".")[0]
    if column in schema.names and (column == name or _has(schema.field(column).type, name.split(".")[1:])):
        return column
    if field.endswith("?"):
        return None
    if column not in schema.names:
        raise NoField(f"{path} has no column {field!r}{_known(field, schema.names)}", field)
    raise NoField(f"{path}: column {column!r} has no field {field!r};", field)


def _has(kind: Any, keys: list[str]) -> bool:
    for key in keys:
        if not hasattr(kind, "get_field_index") or kind.get_field_index(key) < 0:
            return False
        kind = kind.field(key).type
    return True


def table(path: Path, fields: tuple[str, ...], meter: Meter, tabs: bool) -> Iterator[Entry]:
    """The rows of a CSV file, or with `tabs` of a TSV file. The first row names the columns; without such a row columns
    are named by number, from 1."""
    lines = _text_lines(path, meter)
    first = next((line for line in lines if line.strip()), "")
    dividers = "\t" if tabs else ",;\t|"
    divider = next((d for d in dividers if fields[0].rstrip("?") in _cells(first, d)), None)
    lines = chain([first], lines)
    loose = tabs and not all(cell.startswith('"') for cell in first.split("\t"))
    rows = _tab_rows(lines) if loose else _csv_rows(path, lines, divider or max(dividers, key=first.count))
    head = next(rows, [])
    columns: dict[str, int] = {}  # of those that are there
    headless = False
    for name, optional in ((field.rstrip("?"), field.endswith("?")) for field in fields):
        if name in head:
            columns[name] = head.index(name)
        elif re.fullmatch(r"[1-9]\d*", name) and int(name) <= len(head):
            columns[name], headless = int(name) - 1, True
        elif not optional:
            names = [name if len(name) <= 40 else name[:40] + "..." for name in head]
            rest = f"; if that is no header, set it to a column's number, 1 to {len(head)}"
            raise NoField(f"{path} has no column {name!r}{_known(name, names)}", name, rest)
    wanted = tuple(field.rstrip("?") for field in fields)
    for number, row in enumerate(chain([head], rows) if headless else rows, 1):
        if any(row):
            yield number, f"{path} row {number}", partial(_cells_of, row, wanted, columns)


def _cells_of(row: list[str], fields: tuple[str, ...], columns: dict[str, int]) -> dict[str, Any]:
    return {name: row[at] if (at := columns.get(name)) is not None and at < len(row) else None for name in fields}


def _cells(line: str, divider: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=divider), [])
    except csv.Error:
        return []


def _text_lines(path: Path, meter: Meter) -> Iterator[str]:
    offset = 0
    with open_bytes(path, meter) as file:
        for line in file:
            yield decode(line, path, offset)
            offset += len(line)


def _csv_rows(path: Path, lines: Iterator[str], divider: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # a document has any length
    reader = csv.reader(lines, delimiter=divider, strict=True)
    try:
        yield from reader
    except csv.Error as e:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({e}); write it anew, or as .jsonl") from e


CELL = re.compile(r'"(?:[^"]|"")*"(?=\t|$)|[^\t]*')
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
LONGEST_CELL = 1000  # lines, in quotes


def _tab_rows(lines: Iterator[str]) -> Iterator[list[str]]:
    """Cells between tabs. Spreadsheets quote a cell that holds a line break, others write a quotation mark as it is: a
    cell is quoted if it ends in such a mark as it began with one, and it goes on in lines that are no whole rows."""
    columns = 0
    ahead: deque[str] = deque()  # lines that were read too far

    def read() -> str:
        return ahead.popleft() if ahead else next(lines, "")

    while line := read():
        cells, more = _tab_cells(line), [""]
        while (at := next((i for i, cell in enumerate(cells) if _is_open(cell)), None)) is not None:
            if len(more) > LONGEST_CELL or not (another := read()):
                break
            more.append(another)
            joined = _tab_cells(line + "".join(more))
            if at < len(joined) <= (columns or len(joined)) and QUOTED.fullmatch(joined[at]):
                cells, line, more = joined, line + "".join(more), [""]
            elif another.count("\t") + 1 == max(columns, 2):
                break
        ahead.extendleft(reversed(more[1:]))
        columns = columns or len(cells)
        yield [quoted[1].replace('""', '"') if (quoted := QUOTED.fullmatch(cell)) else cell for cell in cells]


def _is_open(cell: str) -> bool:
    return cell.startswith('"') and cell.count('"') % 2 == 1


def _tab_cells(line: str) -> list[str]:
    line = line.removesuffix("\n").removesuffix("\r")
    if '"' not in line:
        return line.split("\t")
    cells: list[str] = []
    at = 0
    while at <= len(line):
        found = CELL.match(line, at)
        assert found is not None  # the empty cell matches anywhere
        cells.append(found[0])
        at = found.end() + 1
    return cells
