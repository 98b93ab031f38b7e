"""The bytes of a file, decompressed according to its content, not its name: gzip, zstd, xz, bzip2."""

import contextlib
import gzip
import importlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from lm.core.errors import UserError

SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}
BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # after "BZh" and a digit: the start of a block, or of an empty stream
SKIPPABLE = tuple(bytes((b,)) + b"\x2a\x4d\x18" for b in range(0x50, 0x60))  # zstd's skippable frames
# Allows frames of `zstd --long=31`, the largest window. Smaller frames still use only the memory they need.
LARGEST_WINDOW = 1 << 31


@dataclass
class Meter:
    """Counts the (compressed) bytes read from files."""

    read: int = 0


def plain_name(name: str) -> str:
    """Strips compression suffixes: "a.csv.gz" -> "a.csv"."""
    stem, suffix = os.path.splitext(name)
    return plain_name(stem) if stem and suffix.lower() in SUFFIXES else name


def compression(path: Path, head: bytes) -> str | None:
    """The compression of a file that starts with these bytes. Raises UserError if its name promises another one."""
    found = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if head.startswith(b"BZh") and head[4:10] in BZIP2:
        found = "bzip2"
    if head.startswith(SKIPPABLE):
        found = "zstd"
    promised = SUFFIXES.get(path.suffix.lower())
    if promised and not found:
        raise UserError(
            f"{path} is truncated or damaged (its name says {promised}, its first bytes do not); compress it again, or "
            f"rename it if it is plain"
        )
    return found


@contextlib.contextmanager
def open_bytes(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """The decompressed content of a file. Read errors are reported the same way as open errors."""
    broken: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    kind = None
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open(path, "rb", buffering=0))
            stored: Any = io.BufferedReader(_Metered(raw, meter or Meter()), 1 << 18)
            kind = compression(path, stored.peek(16)[:16])
            file = stored
            if kind == "gzip":
                file = io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=stored)), 1 << 16)
            elif kind == "zstd":
                zstandard = needs("zstandard", path)
                broken += (zstandard.ZstdError,)
                decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
                file = io.BufferedReader(_Frames(stored, decompressor.decompressobj), 1 << 16)
            elif kind is not None:
                module = needs("lzma" if kind == "xz" else "bz2", path)
                broken += (module.LZMAError,) if kind == "xz" else ()
                file = io.BufferedReader(stack.enter_context(module.open(stored)), 1 << 16)
            yield file
    except broken as e:
        if "too much memory" in str(e):
            raise UserError(f"{path} was made with a larger window than zstd --long=31 has; compress it again") from e
        raise UserError(f"{path} is truncated or damaged ({e}); compress it again") from e
    except OSError as e:
        if e.filename is None and kind is not None:  # the module bz2 reports bad data like this
            raise UserError(f"{path} is truncated or damaged ({e}); compress it again") from e
        unreadable(e, path)


class _Metered(io.RawIOBase):
    """An unbuffered file that counts the bytes read from it."""

    def __init__(self, raw: io.FileIO, meter: Meter) -> None:
        self._raw, self._meter = raw, meter

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        size = self._raw.readinto(into)
        self._meter.read += size
        return size


class _Frames(io.RawIOBase):
    """The content of a file of zstd frames. Raises EOFError if the last frame is truncated, which zstandard's own
    reader would take for the end of the text."""

    def __init__(self, file: IO[bytes], new: Callable[[], Any]) -> None:
        self._file, self._new = file, new
        self._frame: Any = None  # the current one; None between frames
        self._input, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._ready:
            self._input = self._input or self._file.read(1 << 16)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends within a zstd frame")
                return 0
            self._frame = self._frame or self._new()
            self._ready, self._input = memoryview(self._frame.decompress(self._input)), b""
            if self._frame.eof:
                self._frame, self._input = None, self._frame.unused_data
        size = min(len(into), len(self._ready))
        into[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def needs(module: str, path: Path) -> Any:
    """Import a package of the extra `data`, or a module that some Python builds lack."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        remedy = "unpack it first" if module in ("lzma", "bz2") else "pip install -e '.[data]'"
        raise UserError(f"{path} needs the package {module}: {remedy}") from e


def unreadable(e: OSError, path: Path | None = None) -> NoReturn:
    raise UserError(f"cannot read {e.filename or path}: {e.strerror or e}") from e
