"""Folders that are written atomically."""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(folder: Path, ours: Callable[[str], bool]) -> Iterator[Path]:
    """Yields an empty folder to write to, which replaces `folder` at the end. Even if the process is killed, `folder`
    holds the old files, or all of the new ones, or does not exist.

    Files of the old folder whose names are `ours` are deleted; all others move to the new one. A killed process leaves
    a sibling whose name begins with a dot, which the next call cleans up. Raises OSError."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(17, "a file of that name is there", str(folder))
    _recover(folder, ours)
    unique = f".{folder.name}.{uuid.uuid4().hex[:8]}"
    new, old = folder.with_name(f"{unique}.new"), folder.with_name(f"{unique}.old")
    new.mkdir()
    try:
        yield new
        if folder.exists():
            shutil.copymode(folder, new)
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        _recover(folder, ours)


def _recover(folder: Path, ours: Callable[[str], bool]) -> None:
    """Finish or undo what a killed process left beside the folder."""
    for new in folder.parent.glob(f".{folder.name}.????????.new"):
        shutil.rmtree(new)
    for old in folder.parent.glob(f".{folder.name}.????????.old"):
        if not folder.exists():
            old.rename(folder)
            continue
        for path in old.iterdir():
            if not ours(path.name) and not (folder / path.name).exists():
                path.rename(folder / path.name)
        shutil.rmtree(old)
