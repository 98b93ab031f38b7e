"""File formats of a corpus, recognised by content as well as by name.

    text            file names of text and source code (TEXT), markup included: the whole file is one document
    JSON            .jsonl, .ndjson, .json: one object per line, an array of objects or strings, or concatenated objects
    tables          .csv, .tsv: the first row names the columns
    Parquet         one document per row
    other names     Parquet and JSON by content; otherwise text, unless it looks like markup or a table

Any of them may be compressed (`lm.data.compressed`), Parquet in its own way. Every reader raises a one-line UserError
for input it cannot read, with the file, the position in it and the remedy.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from lm.core.errors import UserError
from lm.data import tables
from lm.data.compressed import Meter, open_bytes, plain_name
from lm.data.plain import HEAD, head_of, read_text

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".tab")
TEXT = frozenset(
    f".{suffix}"
    for suffix in re.findall(
        r"\w+",
        "txt text md markdown rst org adoc tex bib srt vtt html htm xhtml xml svg css diff patch po py pyi pyx "
        "c h cc hh cpp hpp cxx cu cuh m mm cs java kt scala go rs swift js mjs jsx ts tsx vue rb pl pm php lua r jl "
        "sh bash zsh ps1 bat sql hs ml mli clj el lisp scm erl ex exs f f90 pas asm s v sv vhd vhdl zig dart nim "
        "proto toml yaml yml ini cfg cmake mk",
    )
)
Read = Callable[[], Iterator[str]]


def entries(path: Path, name: str, field: str, meter: Meter) -> Iterator[tuple[str, Read]]:
    """(name, function that reads the text in pieces) for every document of a file. Text is decoded only when read."""
    if (documents := _records(path, (field,), meter)) is None:
        yield name, partial(read_text, path, meter)
    else:
        for number, where, load in documents:
            yield f"{name}:{number}", partial(_whole, load, where, field)


def records(path: Path, name: str, fields: tuple[str, ...], meter: Meter) -> Iterator[tuple[str, str, tables.Fields]]:
    """(name, file and line, function that reads these fields) of every record of a file."""
    if (found := _records(path, fields, meter)) is None:
        raise UserError(
            f"{path} is plain text, but {', '.join(map(repr, fields))} are to be read of each record: give JSON lines, "
            ".csv, .tsv or Parquet, or set config.data.records.type=Documents"
        )
    for number, where, load in found:
        yield f"{name}:{number}", where, load


SEPARATORS = (b"\n<|endoftext|>", b"\n</s>\n", b"\n[SEP]\n")  # as published collections of short texts have them


def doubt(path: Path) -> str | None:
    """A warning about a .txt file that does not look like a single text, or None."""
    if Path(plain_name(path.name)).suffix.lower() != ".txt":
        return None
    if _looks_json(head := head_of(path)):
        return f"{path} is read as text, as it stands, though it holds JSON: name it .jsonl to have its field read"
    if mark := next((mark for mark in SEPARATORS if mark in head), None):
        shown = mark.decode().strip()
        return f"{path} is read as one text, in which {shown} is text too: write its parts as .jsonl to have them apart"
    return None


def _whole(load: tables.Fields, where: str, field: str) -> Iterator[str]:
    yield tables.text_of(load()[field], where, field)


def _records(path: Path, fields: tuple[str, ...], meter: Meter) -> Iterator[tables.Entry] | None:
    """The fields of a file of records; None for a text file."""
    suffix = Path(plain_name(path.name)).suffix.lower()
    if suffix in TEXT:
        return None
    with open_bytes(path) as file:
        start = file.peek(4)[:4]  # type: ignore[attr-defined]
    if start == b"PAR1" or suffix == ".parquet":
        if plain_name(path.name) != path.name:
            raise UserError(f"{path} is a Parquet file that was compressed as a whole; unpack it first")
        return tables.parquet(path, fields, meter)
    head = head_of(path)
    if suffix in TABLES:
        return tables.table(path, fields, meter, tabs=suffix != ".csv")
    if suffix in JSON_LINES or suffix == ".json" or _looks_json(head):
        return (tables.json_values if _spans_lines(head) else tables.json_lines)(path, fields, meter)
    if (what := _markup(head)) is not None:
        raise UserError(f"{path} looks like {what[0]}: rename it to {what[1]}, or to .txt to read it as it stands")
    return None


def _looks_json(head: bytes) -> bool:
    """Whether this is (the beginning of) a JSON object, or of an array of objects or strings."""
    text = head.decode(errors="ignore").lstrip()
    if text[:1] not in ("{", "["):
        return False
    inner = text[1:].lstrip()
    if inner[:1] not in (('"', "}") if text[0] == "{" else ("{", '"', "]")):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as e:
        return len(head) == HEAD and e.pos > len(text) // 2  # invalid only because we cut it off
    except (RecursionError, ValueError):  # JSON, but beyond what Python parses
        return True
    return True


def _spans_lines(head: bytes) -> bool:
    """Whether JSON is an array or objects that span lines, rather than one value per line."""
    first, _, rest = head.lstrip().partition(b"\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):  # a line that is longer than the head, invalid, or the first of an object
        return first[:1] == b"[" or (first[:1] == b"{" and first.rstrip() in (b"{", b"[")) or _opens(first, rest)
    return isinstance(value, list) and not rest.strip()


def _opens(first: bytes, rest: bytes) -> bool:
    """Whether a value starts on the first line and ends on a later one, as in {"a": 1,"""
    try:
        _, end = json.JSONDecoder().raw_decode(text := (first + b"\n" + rest).decode(errors="ignore"))
    except (ValueError, RecursionError):
        return False
    return b"\n" in text[:end].encode()


def _markup(head: bytes) -> tuple[str, str] | None:
    """(what a file with an unknown name looks like, the suffix it should have), unless it is plain text."""
    start = head.lstrip()[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<mediawiki", b"<svg", b"<rss")):
        return "HTML or XML", ".html"
    lines = head.splitlines()[:-1][:50]
    tabs = [line.count(b"\t") for line in lines]
    if len(lines) >= 3 and tabs[0] and all(a == b for a, b in pairwise(tabs)):
        return "a table of values between tabs", ".tsv"
    return None
