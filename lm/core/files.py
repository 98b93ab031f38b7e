"""Folders that are whole or not there."""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(folder: Path, ours: Callable[[str], bool]) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` at the end: whoever looks there, at any instant of
    a process that may be killed, finds the old files, or all of the new ones, or nothing.

    Of an older folder those files give way whose names are `ours`; the others move into the new one. What a kill leaves
    stands beside it, in a name that begins with a dot, until the next time. Raises OSError."""
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
    """Bring what an earlier process left beside the folder to its end."""
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
