"""A folder takes the place of another as a whole, wherever a process that writes it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm.core.files import replaced

WRITE = """
import os, sys
from pathlib import Path
from lm.core import files

killed, folder = sys.argv[1], Path(sys.argv[2])
rename = Path.rename
def renamed(path, to):
    if killed == "while it is swapped" and path.suffix == ".new":
        os._exit(9)
    rename(path, to)
    if killed == "while others move" and path.name == "notes":
        os._exit(9)
Path.rename = renamed
with files.replaced(folder, lambda name: name.startswith("model")) as new:
    (new / "model").write_text("new")
    if killed == "while it is written":
        os._exit(9)
    (new / "model.2").write_text("new")
"""


def write(killed: str, folder: Path) -> int:
    root = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"PYTHONPATH": root}
    return subprocess.run([sys.executable, "-c", WRITE, killed, str(folder)], env=env).returncode


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("killed", ["while it is written", "while it is swapped", "while others move"])
@pytest.mark.parametrize("before", [{}, {"model": "old", "model.0": "old", "notes": "mine", "README.md": "mine"}])
def test_a_kill_leaves_old_or_new(tmp_path, killed, before):
    folder = tmp_path / "out"
    if before:
        folder.mkdir()
        for name, text in before.items():
            (folder / name).write_text(text)
    elif killed == "while others move":
        return
    assert write(killed, folder) == 9
    models = {name: text for name, text in content(folder).items() if name.startswith("model")}
    assert models in ({}, {"model": "old", "model.0": "old"}, {"model": "new", "model.2": "new"})
    assert write("never", folder) == 0
    mine = {name: text for name, text in before.items() if text == "mine"}
    assert content(folder) == {"model": "new", "model.2": "new"} | mine
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model").write_text("old")
    with pytest.raises(OSError, match="full"), replaced(folder, lambda name: True) as new:
        (new / "model").write_text("new")
        raise OSError("full")
    assert content(folder) == {"model": "old"} and [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError), replaced(folder / "model", lambda name: True):
        pass
