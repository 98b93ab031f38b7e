"""Configs as they stand in files: an experiment file with `get_config()`, or the config.json of a run, which repeats
it."""

import ast
import contextlib
import dataclasses
import json
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core import imports
from lm.core.component import canonical, registered
from lm.core.errors import UserError, nearest
from lm.core.formats import CHECKPOINT, KEY, RUN, SWEEP, format_of
from lm.runs import components
from lm.runs.upgrade import upgraded_config
from lm.train import config
from lm.train.config import CHOSEN, WITHIN, as_config, chosen, nearest_knob, tuples
from lm.zoo.registry import knobs

SAVED = "config.json"  # in the folder of a run
COMPONENTS = ("model", "objective", *CHOSEN)  # sections that are components, whose knobs depend on which
LISTS = ("transforms", "train.surgery", "data.transforms")  # of such parts


def read_config(path: str | Path, default: Callable[[], ConfigDict] = config.default) -> ConfigDict:
    """The config of an experiment file, of a run's config.json, or of the run's folder. "file.py:text" calls
    `get_config("text")`. `default` is what a config.json is laid over.

    Raises `UserError`, a line that names the file and, where it is Python, its line."""
    name, _, argument = str(path).partition(":")
    file = Path(name).expanduser()
    if file.is_dir():
        if not (file / SAVED).is_file():
            raise UserError(f"--config={path}: the folder has no {SAVED}; give an experiment file or a run's folder")
        file = file / SAVED
    if not file.is_file():
        raise UserError(f"config file {file} does not exist: give --config=experiments/<name>.py")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"config file {file} is not Python: {e}") from e
    if file.suffix == ".json" or text.lstrip().startswith("{"):
        return _from_json(file, text, default)
    return read_python(file, *([argument] if argument else []))


def read_python(file: Path, *arguments: str) -> ConfigDict:
    try:
        compile(file.read_text(encoding="utf-8"), str(file), "exec")
    except (SyntaxError, ValueError) as e:  # the latter: a NUL
        line = f", line {e.lineno}" if isinstance(e, SyntaxError) and e.lineno else ""
        raise UserError(f"config file {file}{line} is not Python: {getattr(e, 'msg', e)}") from e
    module = imports.load_file(file)
    make = getattr(module, "get_config", None)
    if not callable(make):
        names = [n for n, v in vars(module).items() if callable(v)]
        hint = nearest("get_config", names) if names else ""
        raise UserError(
            f"config file {file} has no function get_config(){hint if 'mean' in hint else ''}: define one that returns "
            "the config, as experiments/quickstart.py does"
        )
    try:
        made = make(*arguments)
    except Exception as e:  # the file's own code
        raise UserError(_describe(e, file.resolve())) from e
    if not isinstance(made, ConfigDict):
        raise UserError(f"config file {file}: get_config() returns {_a(made)}, not a ConfigDict: add `return config`")
    return made.lock()


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _describe(error: Exception, file: Path) -> str:
    """An error of a config file's code: of an unknown knob with the nearest one, of a wrong type with the right one."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    message = str(error).replace("\\", "")
    wrong_type = re.search(r"field '(\w+)'.* type <class '(\w+)'>.* to type <class '(\w+)'>", message)
    unknown = re.match(r"""['"]*(?:Key )?['"]+(\w+)['"]""", message)
    found = wrong_type or (unknown if isinstance(error, (AttributeError, KeyError)) else None)
    path = _path_in(frames[-1].line or "", found[1]) if frames and found else None
    if path is None or found is None:
        return imports.describe(error, file)
    what = f" is a {wrong_type[2]}; it must be {wrong_type[3]}" if wrong_type else f" is no knob{nearest_knob(path)}"
    return f"{file}, line {frames[-1].lineno}: {path}{what}"


def _path_in(line: str, knob: str) -> str | None:
    """`config.a.b` of a line of code that says `c.a.b = ..` or `c.a.update(b=..)`."""
    found = re.search(rf"\b\w+((?:\.\w+)*?)\.(?:{knob}\b|update\()", line)
    return f"config{found[1]}.{knob}" if found else None


def _from_json(file: Path, text: str, default: Callable[[], ConfigDict]) -> ConfigDict:
    try:
        given = json.loads(text)
    except json.JSONDecodeError as e:
        raise UserError(f"config file {file}, line {e.lineno} is not JSON: {e.msg}") from e
    kind = RUN
    if isinstance(given, dict) and isinstance(given.get("config"), dict):  # what a sweep and a checkpoint write
        kind = CHECKPOINT if "model" in given else SWEEP
    if isinstance(given, dict):
        number = format_of(given, kind, f"config file {file}")
        given = {k: v for k, v in (given if kind is RUN else given["config"]).items() if k != KEY}
        given = upgraded_config(given, number)
    if not isinstance(given, dict):
        raise UserError(f"config file {file} holds {_a(given)}; it must hold the knobs of a config")
    _find_own(given, file.parent)
    made = default()
    try:
        with made.unlocked():
            _lay_over(made, given, "config")
    except UserError as e:
        raise UserError(f"config file {file}: {e}") from e
    return made.lock()


def _find_own(given: Any, folder: Path) -> None:
    """Components of a user's own in a config.json: the checkpoints beside it know where they are defined."""
    if (folder / "checkpoints").is_dir() and not all(map(registered, components.types_in(given))):
        from lm.runs.checkpoint import Checkpoints  # here, since it takes seconds to import

        with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
            latest = checkpoints.latest
            defined = {} if latest is None else checkpoints.meta(latest)["components"]
        components.find(given, defined, folder)


def _lay_over(onto: ConfigDict, given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        path = f"{where}.{name}"
        if name not in onto:
            raise UserError(f"{path} is no knob{nearest_knob(path)}")
        if where == "config" and name in CHOSEN:
            onto[name] = _chosen_over(onto[name], value, name)
        elif (where == "config" and name in COMPONENTS) or path.removeprefix("config.") in WITHIN:
            onto[name] = part(value, path)
        elif path.removeprefix("config.") in LISTS:
            onto[name] = listed(value, path)
        elif isinstance(onto[name], ConfigDict):
            if not isinstance(value, Mapping):
                raise UserError(f"{path}={value!r} must have the knobs {', '.join(onto[name])}")
            _lay_over(onto[name], value, path)
        else:
            kind = type(onto[name]).__name__
            try:
                if isinstance(value, bool) and kind != "bool":  # which a ConfigDict takes for 1
                    raise TypeError
                onto[name] = tuples(value)
            except TypeError as e:
                raise UserError(f"{path}={value!r} is a {type(value).__name__}; it must be {kind}") from e


def _chosen_over(onto: ConfigDict, given: Any, name: str) -> ConfigDict:
    """The component of a section, without those knobs of all its kind that `onto` leaves out: of a sweep, which sets
    them for each of its runs."""
    if isinstance(given, Mapping):
        given = {"type": onto.type, **given}
    made = as_config(chosen(name, given))
    planned = {f.name for f in dataclasses.fields(CHOSEN[name])} - {*onto, *given}
    return ConfigDict({k: v for k, v in made.items() if k not in planned})


def part(value: Any, where: str) -> ConfigDict:
    """A section that is a component, from JSON: a component, or for `config.model` a family with its knobs. Raises
    `UserError`."""
    if (name := where.removeprefix("config.")) in {**CHOSEN, **WITHIN}:
        return as_config(chosen(name, value))
    if isinstance(value, Mapping) and "family" in value:
        return knobs(**{name: v for name, v in value.items() if v is not None})
    if isinstance(value, Mapping) and "type" in value:
        return ConfigDict(canonical(value))
    if value == {}:  # train.init_from says it
        return ConfigDict()
    raise UserError(f'{where} must be a JSON object with a "type", or for a model with a "family"')


def listed(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """One of `LISTS` from JSON: a list of components, or one, with all their knobs. Raises `UserError`."""
    items = value if isinstance(value, list | tuple) else [value]
    for i, item in enumerate(items):
        if not (isinstance(item, Mapping) and "type" in item):
            raise UserError(f'{where}[{i}]={item!r} must be a JSON object with a "type": {{"type": "LoRA", "rank": 8}}')
    return tuple(map(canonical, items))


def literal(text: str) -> Any:
    """A value as it is written in Python or JSON; `ValueError` if it is neither."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as e:
            raise ValueError(f"{text!r} is no value") from e
