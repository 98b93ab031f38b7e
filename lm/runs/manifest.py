"""A folder's manifest: sizes and hashes of every file in it, checked before anything is read."""

import hashlib
import json
import os
from pathlib import Path

NAME = "manifest.json"


def write(folder: Path) -> None:
    """Write `folder`/manifest.json atomically. The files must be complete."""
    files = {name: [path.stat().st_size, _digest(path)] for name, path in sorted(_files(folder).items())}
    unfinished = folder / f"{NAME}.new"
    with open(unfinished, "w") as file:
        json.dump(files, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / NAME)


def is_sealed(folder: Path) -> bool:
    """Whether `folder` was written completely: the manifest is written last."""
    return (folder / NAME).is_file()


def damage(folder: Path) -> str | None:
    """What is wrong with the first file that differs from the manifest; None if none does."""
    if not is_sealed(folder):
        return f"it has no {NAME}: it was not written to its end"
    try:
        listed = json.loads((folder / NAME).read_text())
        entries = [(name, int(size), str(digest)) for name, (size, digest) in listed.items()]
    except (OSError, ValueError, TypeError, AttributeError) as e:
        return f"{NAME} cannot be read: {e}"
    files = _files(folder)
    for name, size, _ in entries:  # all sizes before any hash: they are cheap and catch most damage
        if name not in files:
            return f"{name} is missing"
        if (found := files[name].stat().st_size) != size:
            return f"{name} has {found} bytes, not {size}"
    for name, _, digest in entries:
        try:
            if _digest(files[name]) != digest:
                return f"{name} has changed since it was written"
        except OSError as e:
            return f"{name} cannot be read: {e.strerror}"
    return None


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(NAME))
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
