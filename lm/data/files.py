"""The files of a corpus: paths, folders, globs and lists of these. Links are followed; skipped files are reported."""

import fnmatch
import glob
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lm.core.errors import UserError
from lm.data.compressed import plain_name, unreadable

Where = str | os.PathLike | Sequence[str | os.PathLike]


class CorpusFiles(NamedTuple):
    files: dict[Path, str]  # {resolved path: name within the corpus}
    notes: tuple[str, ...]  # what was skipped, a line per folder


def find_files(where: Where, pattern: str) -> CorpusFiles:
    if isinstance(where, str | os.PathLike):
        where = [where] if os.path.exists(where) else os.fspath(where).split(",")
    files: dict[Path, str] = {}
    notes: tuple[str, ...] = ()
    for part in where:
        part = os.path.expanduser(os.fspath(part).strip())
        if os.path.islink(part) and not os.path.exists(part):
            raise UserError(f"{part} is a link to {os.readlink(part)}, which is not there")
        paths = [part] if os.path.exists(part) else sorted(glob.glob(part, recursive=True))
        if not paths:
            raise UserError(f"no file or folder {part!r}; give a path, a glob, a list of these, or 'python-stdlib'")
        for path in map(Path, paths):
            if path.is_dir():
                found = _folder_files(path, pattern)
                files |= found.files
                notes += found.notes
            elif path.exists():
                files[path.resolve()] = path.name
            else:
                notes += (f"{path} is left out: a link to nothing",)
    return CorpusFiles(files, notes)


def _folder_files(root: Path, pattern: str) -> CorpusFiles:
    folder = walk(root)
    patterns = [one.strip() for one in pattern.split(",")]
    files = {p: name for p, name in folder.files.items() if matches(name.rpartition("/")[2], patterns)}
    others = Counter(f"*{_suffixes(name)}" for p, name in folder.files.items() if p not in files)
    if not files:
        holds = ", ".join(sorted(others)[:10])
        remedy = f"it holds {holds}: give another pattern (config.data.pattern)" if holds else "it is empty"
        raise UserError(f"folder {root} has no file named {pattern}; {remedy}{_left_out(folder.notes)}")
    without = [f"{n:,} {name}" for name, n in others.most_common(5)] + (["others"] if len(others) > 5 else [])
    named = (f"{others.total():,} not named {pattern} ({', '.join(without)})",) if others else ()
    if notes := named + folder.notes:
        return CorpusFiles(files, (f"{root}: {len(files):,} file(s) read; left out: {', '.join(notes)}",))
    return CorpusFiles(files, ())


def _left_out(notes: tuple[str, ...]) -> str:
    return f"; left out: {', '.join(notes)}" if notes else ""


def _suffixes(name: str) -> str:
    """`a.json.gz` -> `.json.gz`; a name without suffix is returned as it is."""
    base = name.rpartition("/")[2]
    plain = plain_name(base)
    stem = plain.rpartition(".")[0]
    return base[len(stem) :] if stem else base


def walk(root: Path, without: Sequence[str] = ()) -> CorpusFiles:
    """All files below a folder except hidden ones and those matching `without`, with notes on what was skipped.

    Links are followed last, so that a file keeps its own name if it has one in the corpus. A folder is read once,
    however many links lead to it, so loops end."""
    files: dict[Path, str] = {}
    seen: set[Path] = set()
    links = deque([root])
    hidden, repeated, broken = 0, 0, []
    while links:
        for folder, folders, names in os.walk(top := links.popleft(), onerror=unreadable):
            here = Path(folder)
            if here.resolve() in seen:
                repeated += here == top
                folders.clear()  # prunes the walk
                continue
            seen.add(here.resolve())
            hidden += sum(matches(name, (".*",)) for name in names + folders)
            kept = sorted(name for name in folders if not matches(name, (".*", *without)))
            folders[:] = [name for name in kept if not (here / name).is_symlink()]
            links.extend(here / name for name in kept if name not in folders)
            for path in (here / name for name in sorted(names) if not matches(name, (".*", *without))):
                if path.is_file():
                    files.setdefault(path.resolve(), path.relative_to(root).as_posix())
                elif path.is_symlink():
                    broken.append(path.relative_to(root).as_posix())
    notes = [f"{hidden:,} hidden"] if hidden else []
    if repeated:
        notes.append(f"{repeated:,} link(s) to what is read already")
    if broken:
        more = ", ..." if len(broken) > 3 else ""
        notes.append(f"{len(broken):,} link(s) to nothing ({', '.join(broken[:3])}{more})")
    return CorpusFiles(files, tuple(notes))


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
