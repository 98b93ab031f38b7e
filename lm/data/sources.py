"""Where text comes from: a source is a split of a corpus that yields documents in a fixed order.

    open_source("python-stdlib")                                  the .py files of the running interpreter
    open_source("moby-dick.txt", "validation", holdout=0.1)       the last tenth of one file
    open_source("corpus/", pattern="*.md,*.txt")                  a folder, recursively
    open_source("shards/*.jsonl.zst", field="content")            JSON lines, here compressed (.gz, .zst)
    open_source("shards/*.parquet", field="content")              a column of Parquet files

The split is by document and a function of the document's name alone, so that growing a corpus moves no
document from one split to the other. (A corpus of one document is cut at a line instead.)
"""

import fnmatch
import glob
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lm.core.errors import UserError, nearest
from lm.data.formats import Read, entries, unreadable

STDLIB = "python-stdlib"
SPLITS = ("train", "validation")

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
    name: str  # path within the corpus; JSON lines and Parquet add ":number"
    text: str


@dataclass(frozen=True)
class Source:
    """The documents of one split ("train", "validation", or "all" where the files are the split).

    Iterating reads the files again each time. Raises UserError for a file that is not UTF-8 text, a line that
    is not a JSON object with the field, and a corpus too small to split.
    """

    files: tuple[tuple[str, Path], ...]  # (name within the corpus, path), sorted
    split: str
    holdout: float
    field: str

    @property
    def fingerprint(self) -> str:
        """Of the options and the files' names, sizes and times: cheap enough to ask at every start."""
        stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in self.files]
        return hashlib.blake2b(
            repr((self.split, self.holdout, self.field, stats)).encode("utf-8", "surrogateescape"),
            digest_size=16,
        ).hexdigest()

    def __iter__(self) -> Iterator[Document]:
        if self.split == "all":
            for name, read in self._entries():
                yield Document(name, read())
            return
        for (name, read), is_held in zip(self._entries(), self._held, strict=True):
            if len(self._held) == 1:
                head, tail = _cut(name, read(), self.holdout)
                yield Document(name, tail if self.split == "validation" else head)
            elif is_held == (self.split == "validation"):
                yield Document(name, read())

    def __len__(self) -> int:
        """How many documents; the files are read for it, but not decoded."""
        if self.split == "all":
            return sum(1 for _ in self._entries())
        return 1 if len(self._held) == 1 else int((self._held == (self.split == "validation")).sum())

    @cached_property
    def _held(self) -> np.ndarray:
        return held_out((name for name, _ in self._entries()), self.holdout)

    def _entries(self) -> Iterator[tuple[str, Read]]:
        """(name, how to read the text) of every document of every split."""
        for name, path in self.files:
            yield from entries(path, name, self.field)


def open_source(
    where: str | os.PathLike | Sequence[str | os.PathLike],
    split: str = "train",
    *,
    validation: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    pattern: str = "*.txt",
    field: str = "text",
    holdout: float = 0.02,
) -> Source:
    """A split of "python-stdlib", or of files, folders, globs, a sequence or comma-separated list of these.

    `pattern` selects by name within a folder (several: "*.txt,*.md"). Files ending in .jsonl or .ndjson hold a document
    a line, Parquet files a document a row, in `field`. `validation` names the files that are the validation split;
    without it a fraction `holdout` of the documents is.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}{nearest(split, SPLITS)}")
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}; give a fraction between 0 and 1, such as 0.02")
    held = find_files(validation, pattern) if validation is not None else None
    if where == STDLIB:
        files = _stdlib_files()
        if held is None:
            held = {p: name for p, name in files.items() if _matches(name, STDLIB_VALIDATION)}
    else:
        files = find_files(where, pattern)
    if held is not None:  # the files decide: what is validation is never trained on
        files = held if split == "validation" else {p: name for p, name in files.items() if p not in held}
        split, holdout = "all", 0.0
    if not files:
        raise UserError(f"every file of {where} is a validation file; no training document is left")
    if not any(path.stat().st_size for path in files):
        first = next(iter(files))
        raise UserError(f"{first if len(files) == 1 else where} is empty; give files with text in them")
    ordered = sorted((name, path) for path, name in files.items())
    return Source(tuple(ordered), split, holdout, field)


def held_out(names: Iterable[str], holdout: float) -> np.ndarray:
    """bool[documents]: which are for validation, by hashes of their names; of two or more some, not all."""
    digests = (hashlib.blake2b(n.encode("utf-8", "surrogateescape"), digest_size=8).digest() for n in names)
    place = np.array([int.from_bytes(d, "big") / 2**64 for d in digests])
    held = place < holdout
    if len(place) == 0:
        raise UserError("the corpus holds no document; every line is blank")
    if not held.any():
        held[place.argmin()] = True
    if len(held) > 1 and held.all():
        held[place.argmax()] = False
    return held


def find_files(where: str | os.PathLike | Sequence[str | os.PathLike], pattern: str) -> dict[Path, str]:
    """{resolved path: name within the corpus} of files, folders, globs and lists of these."""
    if isinstance(where, str | os.PathLike):
        where = [where] if os.path.exists(where) else os.fspath(where).split(",")
    found: dict[Path, str] = {}
    for part in where:
        part = os.path.expanduser(os.fspath(part).strip())
        paths = [part] if os.path.exists(part) else sorted(glob.glob(part, recursive=True))
        if not paths:
            raise UserError(f"no file or folder {part!r}; give a path, a glob, a list of these, or {STDLIB!r}")
        for path in map(Path, paths):
            found |= _folder_files(path, pattern) if path.is_dir() else {path.resolve(): path.name}
    return found


def _folder_files(root: Path, pattern: str) -> dict[Path, str]:
    everything = dict(_walk(root))
    patterns = [one.strip() for one in pattern.split(",")]
    files = {p: name for p, name in everything.items() if _matches(name.rpartition("/")[2], patterns)}
    if not files:
        holds = sorted({f"*{Path(name).suffix}" for name in everything.values()})[:10]
        remedy = f"it holds {', '.join(holds)}: give another pattern" if holds else "it is empty"
        raise UserError(f"folder {root} has no file named {pattern}; {remedy}")
    return files


def _stdlib_files() -> dict[Path, str]:
    root = Path(sysconfig.get_path("stdlib"))
    files = {p: name for p, name in _walk(root, STDLIB_WITHOUT) if p.suffix == ".py"}
    if not files:
        raise UserError(f"this Python keeps no .py files in {root}; give a folder of text instead of {STDLIB!r}")
    return files


def _walk(root: Path, without: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
    """(resolved path, name relative to root) of all files neither hidden nor named as in `without`."""
    without = (".*", *without)
    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = [f for f in folders if not _matches(f, without)]  # prunes the walk
        for file in files:
            path = Path(folder, file)
            if not _matches(file, without) and path.is_file():
                yield path.resolve(), path.relative_to(root).as_posix()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _cut(name: str, text: str, holdout: float) -> tuple[str, str]:
    """Cuts a corpus's only document into (train, validation) at the last line that starts by 1 - holdout."""
    near = int(len(text) * (1 - holdout))
    cut = text.rfind("\n", 0, near) + 1 or text.find("\n", near) + 1
    if not 0 < cut < len(text):
        raise UserError(f"{name} is a single line and cannot be split; name another file as validation")
    return text[:cut], text[cut:]
