"""Importing the user's own code: experiment files, and files or modules that define components.

A file that a checkpoint or a config.json merely mentions is never imported, since importing runs it: the user has to
name it with `--config` or `--import`."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from lm.core.errors import UserError


def load(where: str) -> ModuleType:
    """Import `where`: a path ending in .py, or a module's dotted name. Any failure is a one-line `UserError` with file
    and line."""
    if where.endswith(".py"):
        return load_file(where)
    if "/" in where or not where:
        raise UserError(f"--import={where} is neither a .py file nor a module: give --import=FILE.py or --import=a.b.c")
    try:
        return importlib.import_module(where)
    except Exception as e:  # the module's own code
        raise UserError(f"--import={where}: {describe(e)}") from e


def load_file(path: str | Path) -> ModuleType:
    """Import a Python file, at most once per process; it can import the files beside it. Raises `UserError` for a file
    that is missing, is not Python, or fails."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"file {path} does not exist: check the path")
    file = file.resolve()
    for module in list(sys.modules.values()):  # a second copy would define its components again
        if getattr(module, "__file__", None) == str(file):
            return module
    spec = importlib.util.spec_from_file_location(str(file), file)
    assert spec is not None and spec.loader is not None  # always present for .py
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last, so that no file shadows a package
    sys.modules[str(file)] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:  # the file's own code
        del sys.modules[str(file)]
        raise UserError(describe(e, file)) from e
    return module


def describe(error: Exception, file: Path | None = None) -> str:
    """One line about an error in the user's code: the line of `file` (by default the innermost one) and the error."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or file} is not Python: {error.msg}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if file is not None and f.filename == str(file)] or frames
    reason = " ".join(str(error).split())
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{mine[-1].filename}, line {mine[-1].lineno}: {kind}{reason}" if mine else f"{kind}{reason}"
