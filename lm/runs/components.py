"""The components that a run is made of. Importing this makes every component of lm.model, lm.objectives, lm.adapt and
lm.compress known to `from_dict`, which can only name what has been imported: a checkpoint must open in a process that
has never seen the experiment file.

Components of a user's own: a checkpoint records where each of them is defined (`definitions`), and `restored` finds
them again. A module that can be imported by its name is. A file never is, for importing runs it, and a checkpoint may
come from anybody: the error says which file, and a person names it with --import (or `lm.core.imports.load`)."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lm.adapt
import lm.compress
import lm.model
import lm.objectives
from lm.core.component import Definition, definition, from_dict, registered
from lm.core.errors import UserError

for _package in (lm.model, lm.objectives, lm.adapt, lm.compress):
    for _module in pkgutil.walk_packages(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)

Definitions = Mapping[str, Mapping[str, str | None]]  # component -> its module and file, as JSON


def types_in(saved: Any) -> Iterator[str]:
    """The names of the components in what `to_dict` wrote."""
    if isinstance(saved, Mapping):
        if isinstance(saved.get("type"), str):
            yield saved["type"]
        for value in saved.values():
            yield from types_in(value)
    elif isinstance(saved, (list, tuple)):
        for value in saved:
            yield from types_in(value)


def definitions(*saved: Any) -> dict[str, dict[str, str | None]]:
    """Where those components in what `to_dict` wrote are defined that are not of this package."""
    known = {name: registered(name) for tree in saved for name in types_in(tree)}
    own = {name: cls for name, cls in known.items() if cls and cls.__module__.partition(".")[0] != "lm"}
    return {name: definition(cls)._asdict() for name, cls in own.items()}


def restored(saved: Any, defined: Definitions, where: str, source: str | Path) -> Any:
    """The component tree that `to_dict` wrote, from `source`, where components of a user's own are `defined` thus.

    Raises `UserError` for one that is not imported and cannot be by its module's name; and as `from_dict` does."""
    find(saved, defined, source)
    return from_dict(saved, where)


def find(saved: Any, defined: Definitions, source: str | Path) -> None:
    """Import what of the components in `saved` is not yet, where that is allowed; else `UserError`, as `restored`."""
    for name in sorted(set(types_in(saved))):
        if registered(name) is None and name in defined:
            _find(name, Definition(**defined[name]), source)


def _find(name: str, place: Definition, source: str | Path) -> None:
    if place.module is not None:
        with contextlib.suppress(ImportError):
            importlib.import_module(place.module)
    if registered(name) is not None:
        return
    if place.file is None:
        remedy = "write it into a file and add --import=FILE.py"
    elif Path(place.file).is_file():
        remedy = f"add --import={place.file} (which runs that file)"
    else:
        remedy = "which is not there now: add --import=FILE.py with the file's new place"
    raise UserError(f"{source} has the component {name!r}, defined in {place}: {remedy}")
