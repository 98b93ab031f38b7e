"""File formats of a corpus: plain text, JSON lines, Parquet; the first two also compressed (.gz, .zst).

Every reader raises UserError, in one line, for what cannot be read: it names the file, the place and the remedy.
"""

import contextlib
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

from lm.core.errors import UserError, nearest

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
Read = Callable[[], str]


def entries(path: Path, name: str, field: str) -> Iterator[tuple[str, Read]]:
    """(name, how to read the text) of every document of a file; only a wanted text is decoded."""
    plain = name.removesuffix(".gz").removesuffix(".zst")
    if plain.endswith(PARQUET):
        yield from _parquet(path, name, field)
    elif plain.endswith(JSON_LINES):
        offset = 0
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{name}:{number}", partial(_read_json, line, path, number, offset, field)
                offset += len(line)
    else:
        yield name, partial(_read_text, path)


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed. What goes wrong while they are read is told like what goes wrong here."""
    broken: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    try:
        with contextlib.ExitStack() as stack:
            file: Any = stack.enter_context(open(path, "rb"))
            if path.name.endswith(".gz"):
                file = stack.enter_context(gzip.open(file))
            elif path.name.endswith(".zst"):
                zstandard = _needs("zstandard", path)
                broken += (zstandard.ZstdError,)
                file = stack.enter_context(io.BufferedReader(_Frames(file, zstandard.ZstdDecompressor)))
            yield file
    except broken as e:
        raise UserError(f"{path} is truncated or damaged ({e}); compress it again") from e
    except OSError as e:
        unreadable(e)


class _Frames(io.RawIOBase):
    """The content of a file of zstd frames. (zstandard's own reader takes the end of a cut file for that of the text.)
    EOFError where the last frame is not whole."""

    def __init__(self, file: IO[bytes], decompressor: Callable[[], Any]) -> None:
        self._file, self._new = file, decompressor
        self._frame: Any = None  # being read; None between frames
        self._input, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._ready:
            self._input = self._input or self._file.read(1 << 16)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends within a zstd frame")
                return 0
            self._frame = self._frame or self._new().decompressobj()
            self._ready, self._input = self._frame.decompress(self._input), b""
            if self._frame.eof:
                self._frame, self._input = None, self._frame.unused_data
        size = min(len(into), len(self._ready))
        into[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _needs(module: str, path: Path) -> Any:
    """An optional package of the extra `data`."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise UserError(f"{path} needs the package {module}: pip install -e '.[data]'") from e


def unreadable(e: OSError) -> NoReturn:
    raise UserError(f"cannot read {e.filename}: {e.strerror}") from e


def _parquet(path: Path, name: str, field: str) -> Iterator[tuple[str, Read]]:
    arrow, parquet = _needs("pyarrow", path), _needs("pyarrow.parquet", path)
    try:
        with parquet.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise UserError(f"{path} has no column {field!r}{nearest(field, file.schema_arrow.names)}")
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                for value in batch.column(0):
                    number += 1
                    yield f"{name}:{number}", partial(_text, value.as_py(), f"{path} row {number}", field)
    except arrow.ArrowInvalid as e:
        raise UserError(f"{path} is no whole Parquet file ({' '.join(str(e).split())[:120]})") from e
    except OSError as e:
        raise UserError(f"cannot read {path}: {' '.join(str(e).split())[:120]}") from e


def _read_text(path: Path) -> str:
    with open_bytes(path) as file:
        return _decode(file.read(), path, 0)


def _read_json(line: bytes, path: Path, number: int, offset: int, field: str) -> str:
    where = f"{path} line {number}"
    try:
        record = json.loads(_decode(line, path, offset))
    except json.JSONDecodeError as e:
        raise UserError(f"{where} is not JSON ({e.msg} at column {e.colno})") from e
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object but {type(record).__name__}; write one {{...}} a line")
    if field not in record:
        raise UserError(f"{where} has no field {field!r}{nearest(field, record)}")
    return _text(record[field], where, field)


def _text(value: Any, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} is not text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as e:  # JSON can spell half of a surrogate pair, which is no character
        raise UserError(f"{where} holds half a surrogate pair ({value[e.start]!a}); repair it") from e
    return value


def _decode(data: bytes, path: Path, offset: int) -> str:
    if b"\0" in data:
        raise UserError(f"{path} is binary (a NUL at byte {offset + data.index(0)}); give text files only")
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 at byte {offset + e.start}; convert it (iconv -t UTF-8)") from e
    return text.removeprefix("\ufeff") if offset == 0 else text  # a byte order mark is no text
