"""Reading plain text in pieces, and recognising files that are something else."""

import re
from collections.abc import Iterator
from pathlib import Path

from lm.core.errors import UserError
from lm.data.compressed import Meter, open_bytes, plain_name

PIECE = 1 << 20  # bytes that are read at a time
HEAD = 1 << 16  # bytes by which a file is judged

# The first bytes of common binary formats, and what to do about them.
BINARY = {
    b"%PDF-": ("a PDF document", "extract its text first (pdftotext)"),
    b"{\\rtf": ("a rich text document", "save it as plain text"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it first"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it first"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "unpack it, or compress it with gzip or zstd"),
    b"SQLite format 3\0": ("an SQLite database", "export a table as .csv or .jsonl"),
    b"ARROW1": ("an Arrow (Feather) file", "write it as Parquet"),
    b"\xff\xff\xff\xff": ("an Arrow stream, as `datasets` saves to disk", "write it as Parquet (Dataset.to_parquet)"),
    b"\xd0\xcf\x11\xe0": ("an old Office document", "save it as plain text"),
    b"\x89HDF": ("an HDF5 file", "export its text as .jsonl"),
    b"\x93NUMPY": ("a NumPy array", "give the text, not its tokens"),
    b"Obj\x01": ("an Avro file", "write it as Parquet or .jsonl"),
    b"ORC": ("an ORC file", "write it as Parquet"),
    b"GGUF": ("the weights of a model (GGUF)", "give text as data"),
    b"\x7fELF": ("a program", "give text files only"),
    b"\x89PNG": ("an image", "give text files only"),
    b"\xff\xd8\xff": ("an image", "give text files only"),
    b"GIF8": ("an image", "give text files only"),
}
PICKLE = re.compile(rb"\x80[\x02-\x05]")
OFFICE = {b"word/": "a Word document", b"xl/": "an Excel workbook", b"ppt/": "a PowerPoint file"}
# Formats without a signature.
BY_NAME = {
    ".msgpack": ("a MessagePack file", "write it as .jsonl"),
    ".tfrecord": ("a TFRecord file", "write it as .jsonl"),
    ".pkl": ("a pickle", "write it as .jsonl: a pickle can run any program"),
    ".pickle": ("a pickle", "write it as .jsonl: a pickle can run any program"),
    ".safetensors": ("the weights of a model", "give text as data"),
}
WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_text(path: Path, meter: Meter | None = None) -> Iterator[str]:
    """Yield a text file in pieces of about PIECE characters. Raises UserError for anything but UTF-8 text."""
    with open_bytes(path, meter) as file:
        offset, rest = 0, b""
        while data := file.read(PIECE):
            data = rest + data
            if offset == 0:
                check_head(path, data[:HEAD])
            text, rest = decode_part(data, path, offset)
            offset += len(data) - len(rest)
            if text:
                yield text
        if rest:
            decode(rest, path, offset)


def head_of(path: Path) -> bytes:
    """The first bytes of a file's content, without a byte order mark. Raises UserError if it is not text."""
    with open_bytes(path) as file:
        head = file.read(HEAD)
    check_head(path, head)
    return head.removeprefix(b"\xef\xbb\xbf")


def check_head(path: Path, head: bytes) -> None:
    """Raise UserError, with a remedy, for a file that starts like a known binary format."""
    for mark, encoding in WIDE.items():
        if head.startswith(mark):
            raise UserError(f"{path} is {encoding} text: convert it (iconv -f {encoding} -t UTF-8)")
    magic = next((m for m in BINARY if head.startswith(m)), None)
    if magic is not None and (magic in (b"%PDF-", b"{\\rtf") or not _is_text(head)):
        what, remedy = BINARY[magic]
        if magic.startswith(b"PK"):
            what = next((found for part, found in OFFICE.items() if part in head), what)
            remedy = remedy if what == "a zip archive" else "save it as plain text or .csv"
    elif PICKLE.match(head):
        what, remedy = BY_NAME[".pickle"]
    elif head[257:262] == b"ustar":
        what, remedy = "a tar archive", "unpack it first"
    elif not _is_text(head) and (suffix := Path(plain_name(path.name)).suffix.lower()) in BY_NAME:
        what, remedy = BY_NAME[suffix]
    else:
        return
    raise UserError(f"{path} is {what}, not text: {remedy}")


def decode(data: bytes, path: Path, offset: int) -> str:
    """`data`, which begins at that byte of the file's content."""
    text, rest = decode_part(data, path, offset)
    if rest:
        raise _not_utf8(data, path, offset, len(data) - len(rest))
    return text


def decode_part(data: bytes, path: Path, offset: int) -> tuple[str, bytes]:
    """(text, the bytes of a character that `data` ends in the midst of)."""
    if b"\0" in data:
        at = offset + data.index(0)
        if offset == 0 and (_nearly_all(data[:HEAD:2], 0) or _nearly_all(data[1:HEAD:2], 0)):
            raise UserError(f"{path} is UTF-16 text (a NUL at byte {at}): convert it (iconv -f UTF-16LE -t UTF-8)")
        raise UserError(f"{path} is binary (a NUL at byte {at}); give text files only")
    try:
        text, rest = data.decode(), b""
    except UnicodeDecodeError as e:
        if e.reason != "unexpected end of data":
            raise _not_utf8(data, path, offset, e.start) from e
        text, rest = data[: e.start].decode(), data[e.start :]
    return text.removeprefix("\ufeff") if offset == 0 else text, rest  # a byte order mark is no text


def _not_utf8(data: bytes, path: Path, offset: int, at: int) -> UserError:
    around = data[max(0, at - 200) : at + 200]
    odd = sum(b < 32 and b not in b"\t\n\r\f" for b in around) + sum(b >= 128 for b in around) > len(around) // 2
    looks = "" if odd else "; it may be Latin-1 or Windows-1252"
    convert = "convert it (iconv -t UTF-8)" if odd else "convert it (iconv -f WINDOWS-1252 -t UTF-8)"
    return UserError(f"{path} is not UTF-8 at byte {offset + at}{looks}: {convert}")


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as e:
        return e.reason == "unexpected end of data"
    return True


def _nearly_all(data: bytes, value: int) -> bool:
    return len(data) > 1 and data.count(value) > 0.9 * len(data)
