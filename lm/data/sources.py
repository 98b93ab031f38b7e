"""Sources of text: a source is a split of a corpus, which yields documents in a fixed order.

    open_source("python-stdlib")                                  the .py files of the running interpreter
    open_source("moby-dick.txt", "validation", holdout=0.1)       the last tenth of one file
    open_source("corpus/", pattern="*.md,*.txt")                  a folder, recursively, links followed
    open_source("shards/*.jsonl.zst", field="content")            JSON lines, here compressed
    open_source("table.csv", field="body")                        a column; so with .tsv and .parquet
    open_source("pairs.tsv", fields=("en", "zh"))                 several fields of each record (`lm.data.records`)

For the formats see `lm.data.formats`. The split is by document, and depends only on the document's name, so growing a
corpus does not move documents between splits. (A corpus of a single document is cut at a line instead.) A text file is
one document, whatever its size; long ones are read in pieces.
"""

import dataclasses
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np

from lm.core.errors import UserError, nearest
from lm.data.compressed import Meter
from lm.data.files import Where, find_files, matches, walk
from lm.data.formats import Read, doubt, entries, records
from lm.data.plain import PIECE
from lm.data.records.records import SourceRecord
from lm.data.tables import KNOB, Fields, NoField, sound

READING = 2  # raised where the same files are read as other documents than before
STDLIB = "python-stdlib"
SPLITS = ("train", "validation")
LOOKED_AT = 3  # files whose name is compared with what they hold

# The validation modules of the standard library: plain, varied code, about 3.5 % of the bytes, which
# Python 3.11 to 3.13 have and Debian's trimmed package too.
STDLIB_VALIDATION = (
    "argparse.py", "bisect.py", "colorsys.py", "contextlib.py", "fnmatch.py", "fractions.py", "heapq.py",
    "json/*.py", "shlex.py", "textwrap.py",
)  # fmt: skip
# Left out: tests, what distributions split off or later versions dropped (so that the corpus is nearly the
# same everywhere), generated tables (encodings, pydoc_data), and files that describe one machine.
STDLIB_WITHOUT = (
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo",
    "lib2to3", "distutils", "ensurepip", "encodings", "pydoc_data", "config-*", "_sysconfigdata*",
    "sitecustomize.py",
)  # fmt: skip


@dataclass(frozen=True)
class Document:
    name: str  # path within the corpus; JSON, tables and Parquet add ":number"
    text: str

    def pieces(self) -> Iterator[str]:
        """The text, in order, in pieces that are no burden."""
        for start in range(0, max(1, len(self.text)), PIECE):
            yield self.text[start : start + PIECE]


@dataclass(frozen=True)
class LongDocument:
    """A document that is read in pieces: characters `start` to `stop` of what `read` yields."""

    name: str
    read: Read
    start: int = 0
    stop: int | None = None

    def pieces(self) -> Iterator[str]:
        at = 0
        for piece in self.read():
            wanted = piece[max(0, self.start - at) : None if self.stop is None else max(0, self.stop - at)]
            at += len(piece)
            if wanted:
                yield wanted
            if self.stop is not None and at >= self.stop:
                break

    @property
    def text(self) -> str:
        return "".join(self.pieces())


@dataclass(frozen=True)
class Source:
    """The documents of one split ("train", "validation", or "all" where the files are the split).

    Iterating reads the files again each time. Raises UserError for a file that is not text, a line that is not a JSON
    object, records without the field, and a corpus too small to split.
    """

    files: tuple[tuple[str, Path], ...]  # (name within the corpus, path), sorted
    split: str
    holdout: float
    field: str
    fields: tuple[str, ...] = ()  # of each record; without any the documents are the text of `field`
    knobs: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)  # what names each, for errors
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)  # what the folders hold besides
    meter: Meter = dataclasses.field(default_factory=Meter, compare=False, repr=False)  # of an iteration

    @property
    def fingerprint(self) -> str:
        """Hash of the options and the files' names, sizes and times: cheap enough to compute at every start."""
        stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in self.files]
        return hashlib.blake2b(
            repr((READING, self.split, self.holdout, self.fields or self.field, stats)).encode(
                "utf-8", "surrogateescape"
            ),
            digest_size=16,
        ).hexdigest()

    @property
    def done(self) -> float:
        """The fraction of the files that the current iteration has read."""
        return min(1.0, self.meter.read / self.size)

    @cached_property
    def size(self) -> int:
        """Total size of the files, in bytes as stored."""
        return max(1, sum(path.stat().st_size for _, path in self.files))

    def __iter__(self) -> Iterator[Document | LongDocument | SourceRecord]:
        if self.fields:
            yield from self._fields_of()
            return
        alone = self.split != "all" and len(self._held) == 1
        cut = self._cut if alone else 0
        self.meter.read = 0
        if alone:
            ((name, read),) = self._entries()
            yield LongDocument(name, read, cut) if self.split == "validation" else LongDocument(name, read, 0, cut)
            return
        held = self._held if self.split != "all" else None
        for i, (name, read) in enumerate(self._entries()):
            if held is None or held[i] == (self.split == "validation"):
                yield _document(name, read)

    def _fields_of(self) -> Iterator[SourceRecord]:
        """The records of the split."""
        held = self._held if self.split != "all" else None
        if held is not None and len(held) == 1:
            raise UserError(
                f"{self.files[0][1]} has a single record, which cannot be split: give more, or validation files"
            )
        self.meter.read = 0
        for i, (name, where, load) in enumerate(self._records()):
            if held is None or held[i] == (self.split == "validation"):
                record = SourceRecord(name, where, load())
                for text in record.pieces():
                    sound(text, where)
                yield record

    def __len__(self) -> int:
        """The number of documents. Reads the files, but does not decode them."""
        if self.split == "all":
            return sum(1 for _ in self._names())
        return 1 if len(self._held) == 1 else int((self._held == (self.split == "validation")).sum())

    @cached_property
    def _held(self) -> np.ndarray:
        return held_out(self._names(), self.holdout)

    @cached_property
    def _cut(self) -> int:
        ((name, read),) = self._entries()
        return cut_of(name, read, self.holdout)

    def _names(self) -> Iterator[str]:
        """Of every document of every split."""
        return (name for name, *_ in (self._records() if self.fields else self._entries()))

    def _records(self) -> Iterator[tuple[str, str, Fields]]:
        """(name, file and line, how to read its fields) of every record of every split."""
        for name, path in self.files:
            try:
                yield from records(path, name, self.fields, self.meter)
            except NoField as e:
                raise e.named_by(self.knobs.get(e.field, KNOB)) from e

    def _entries(self) -> Iterator[tuple[str, Read]]:
        """(name, how to read the text) of every document of every split."""
        for name, path in self.files:
            yield from entries(path, name, self.field, self.meter)


def _document(name: str, read: Read) -> Document | LongDocument:
    first = list(islice(pieces := read(), 2))
    if len(first) < 2:
        return Document(name, "".join(first))
    return LongDocument(name, _from_first(chain(first, pieces), read))


def _from_first(begun: Iterator[str], read: Read) -> Read:
    """A reader that first continues from what has already been read of a document."""
    left = [begun]
    return lambda: left.pop() if left else read()


def open_source(
    where: Where,
    split: str = "train",
    *,
    validation: Where | None = None,
    pattern: str = "*.txt",
    field: str = "text",
    fields: tuple[str, ...] = (),
    knobs: Mapping[str, str] | None = None,
    holdout: float = 0.02,
) -> Source:
    """A split of "python-stdlib", or of files, folders, globs, a sequence or comma-separated list of these.

    `pattern` selects by name within a folder (several: "*.txt,*.md"). `field` names the text in each record of JSON, or
    the column of a table or of Parquet; "meta.text" is a field within a field; `fields` are those to read of
    records that are not plain text, and `knobs` says what names each of them. `validation` names the files that are the
    validation split; without it a fraction `holdout` of the documents is.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}{nearest(split, SPLITS)}")
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}; give a fraction between 0 and 1, such as 0.02")
    held, held_notes = find_files(validation, pattern) if validation is not None else (None, ())
    notes: tuple[str, ...] = ()
    if where == STDLIB:
        files = _stdlib_files()
        if held is None:
            held = {p: name for p, name in files.items() if matches(name, STDLIB_VALIDATION)}
    else:
        files, notes = find_files(where, pattern)
    if held is not None:  # the files decide: what is validation is never trained on
        notes = held_notes if split == "validation" else notes
        files = held if split == "validation" else {p: name for p, name in files.items() if p not in held}
        split, holdout = "all", 0.0
    if not files:
        raise UserError(f"every file of {where} is a validation file; no training document is left")
    if not any(path.stat().st_size for path in files):
        first = next(iter(files))
        raise UserError(f"{first if len(files) == 1 else where} is empty; give files with text in them")
    ordered = sorted((name, path) for path, name in files.items())
    notes += tuple(note for path in list(files)[:LOOKED_AT] if (note := doubt(path)))
    return Source(tuple(ordered), split, holdout, field, fields, knobs or {}, notes)


def held_out(names: Iterable[str], holdout: float) -> np.ndarray:
    """bool[documents]: which are for validation, by hashes of their names. Of two or more documents at least one is,
    and at least one is not."""
    digests = (hashlib.blake2b(n.encode("utf-8", "surrogateescape"), digest_size=8).digest() for n in names)
    fraction = np.array([int.from_bytes(d, "big") / 2**64 for d in digests])
    held = fraction < holdout
    if len(fraction) == 0:
        raise UserError("the corpus holds no document; every line is blank")
    if not held.any():
        held[fraction.argmin()] = True
    if len(held) > 1 and held.all():
        held[fraction.argmax()] = False
    return held


def _stdlib_files() -> dict[Path, str]:
    root = Path(sysconfig.get_path("stdlib"))
    files = {p: name for p, name in walk(root, STDLIB_WITHOUT).files.items() if p.suffix == ".py"}
    if not files:
        raise UserError(f"this Python keeps no .py files in {root}; give a folder of text instead of {STDLIB!r}")
    return files


NEAR = 1 << 20  # characters before the place that `holdout` asks for, in which a line or word must begin, at most
NEAR_LEAST = 2000
SHORTEST = 100  # characters of a line that can be held out of it


def cut_of(name: str, read: Read, holdout: float) -> int:
    """Where the only document of a corpus is cut into training and validation: at the last line that starts before the
    fraction 1 - holdout of the text, or at the last word if that line is too long."""
    size = sum(map(len, read()))
    near = int(size * (1 - holdout))
    reach = min(NEAR, max(NEAR_LEAST, size - near))
    before, at, after = "", 0, ""  # what comes before `near`, and after
    for piece in read():
        room = max(0, near - at)
        before = (before + piece[:room])[-reach:]
        after = (after + piece[room:])[:NEAR]
        at += len(piece)
        if len(after) == NEAR:
            break
    found = before.rfind("\n") + 1
    if found:
        return near - len(before) + found
    forth = after.find("\n") + 1
    if size <= NEAR and 0 < forth < len(after):
        return near + forth
    if size - near < SHORTEST:
        raise UserError(f"{name} is a single line and too short to be split; name another file as validation")
    found = before.rfind(" ") + 1
    return near - len(before) + found if found else near
