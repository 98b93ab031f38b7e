"""The components a run is made of. Importing this module registers every component of lm.model, lm.objectives, lm.adapt
and lm.compress, since `from_dict` only knows what has been imported and a checkpoint must open in a process that has
never seen the experiment file.

A user's own components: a checkpoint records where each is defined (`definitions`), and `restored` finds them again. A
module is imported by name. A file never is: importing it runs it, and a checkpoint may come from anybody. The error
names the file, and the user passes it with --import (or `lm.core.imports.load`)."""

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
    """The component names in the output of `to_dict`."""
    if isinstance(saved, Mapping):
        if isinstance(saved.get("type"), str):
            yield saved["type"]
        for value in saved.values():
            yield from types_in(value)
    elif isinstance(saved, (list, tuple)):
        for value in saved:
            yield from types_in(value)


def definitions(*saved: Any) -> dict[str, dict[str, str | None]]:
    """Where the components outside this package are defined, given outputs of `to_dict`."""
    known = {name: registered(name) for tree in saved for name in types_in(tree)}
    own = {name: cls for name, cls in known.items() if cls and cls.__module__.partition(".")[0] != "lm"}
    return {name: definition(cls)._asdict() for name, cls in own.items()}


def restored(saved: Any, defined: Definitions, where: str, source: str | Path) -> Any:
    """The component tree that `to_dict` wrote into `source`; `defined` says where the user's own components are.

    Raises `UserError` for a component that cannot be imported by its module's name, and whenever `from_dict` does."""
    find(saved, defined, source)
    return from_dict(saved, where)


def find(saved: Any, defined: Definitions, source: str | Path) -> None:
    """Import the modules of components in `saved` that are not registered yet. Raises `UserError` as `restored`."""
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
