"""Knobs from the command line, `--config.a.b=value`, laid over the config of a file.

Rules. A value takes the type that the knob has. Parts that are chosen whole come first, whatever their order on the
command line: `--config.model=FILE.json` (or a JSON text) replaces the model, as `--config.objective=` does the
objective and `--config.transforms=` the list of transforms
and `--config.train.surgery=` that of surgery; another `--config.model.family=` begins a new model, and
another `--config.objective.type=` (or the type of any component) a new component: of the old one's knobs those remain
that both have from a common class, as optimizers have their learning rate. Then come the others, from left to
right."""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections.config_dict import ConfigDict, placeholder

from lm.core.component import registered, to_dict
from lm.core.errors import UserError, nearest
from lm.runs.upgrade import MOVED
from lm.train.config import CHOSEN, WITHIN, nearest_knob, tuples, wrong_type
from lm.train.config_file import COMPONENTS, LISTS, listed, literal, part
from lm.zoo.registry import FAMILIES, knobs, knobs_of_family

Node = ConfigDict | dict[str, Any] | list[Any]
TRUE, FALSE = ("true", "t", "1", "yes", "y", "on"), ("false", "f", "0", "no", "n", "off")


def override(config: ConfigDict, given: Sequence[tuple[str, str | None]]) -> list[str]:
    """Set these knobs: ("data.length", "64"), ("train.unroll", None), in place. Returns what should be told of it, a
    line each. Raises `UserError` for a knob that is not there and for a value of another type."""
    notes: list[str] = []
    with config.unlocked():
        for path, text in sorted(given, key=lambda knob: _order(knob[0])):
            _set(config, path, text, notes)
    return notes


def _order(path: str) -> tuple[int, int]:
    """Whole parts first, outer before inner ones."""
    steps = path.split(".")
    rank = 0 if path in (*COMPONENTS, *LISTS) else 1 if steps[-1] in ("family", "type") else 2
    return rank, len(steps) if rank < 2 else 0


def _set(config: ConfigDict, path: str, text: str | None, notes: list[str]) -> None:
    where = f"config.{path}"
    if path in COMPONENTS:
        config[path] = part(_json(_given(text, where), where), where)
        return
    if path in LISTS:
        section, _, name = path.rpartition(".")
        (config[section] if section else config)[name] = listed(_json(_given(text, where), where), where)
        return
    *outer, last = (int(s[1:-1]) if s[0] == "[" else s for s in re.findall(r"[^.\[\]]+|\[\d+\]", path) or [""])
    node: Any = config
    for depth, step in enumerate(outer):
        _check_step(node, step, path, config)
        if isinstance(node, ConfigDict) and node is config.get("model") and node[step] is None and outer[depth:]:
            raise UserError(f"{where}: config.model.{step} is not set; give it whole, as JSON or a .json file")
        node = node[step]
    if path == "model.family":
        _set_family(config, _given(text, where), notes)
        return
    if node is config.get("model") and "family" in config.model and last not in config.model:
        _add_to_model(config, last, _given(text, where))
        return
    _check_step(node, last, path, config)
    if last == "type":
        _set_type(node, _given(text, where), where, notes)
        return
    kind = node.get_type(last) if isinstance(node, ConfigDict) else type(node[last])
    optional = node[last] is None or node is config.get("model")
    node[last] = _parsed(text, kind, node[last], optional, where)


def _check_step(node: Any, step: str | int, path: str, config: ConfigDict) -> None:
    """Raise `UserError` where a path leads nowhere."""
    if isinstance(node, (list, tuple)):
        if isinstance(step, int) and step < len(node):
            return
        raise UserError(f"config.{path}: there are {len(node)} items, from [0] on")
    if isinstance(node, (ConfigDict, Mapping)) and step in node:
        return
    if not isinstance(node, (ConfigDict, Mapping)):
        raise UserError(f"config.{path} is no knob of this config: {node!r} has no {step!r}")
    if node is config.get("model") and "family" in node:
        family = node["family"]
        raise UserError(f"config.{path} is no knob of {family}{nearest(str(step), knobs_of_family(family))}")
    if (top := re.split(r"[.\[]", path)[0]) in (*COMPONENTS, *LISTS) and top not in CHOSEN:
        hint = nearest_knob(path, config) if path in MOVED else nearest(str(step), node)
        raise UserError(f"config.{path} is no knob of {node.get('type', 'it')}{hint}")
    raise UserError(f"config.{path} is no knob of this config{nearest_knob(f'config.{path}', config)}")


def _set_family(config: ConfigDict, family: str, notes: list[str]) -> None:
    before = config.model.get("family") or config.model.get("type")
    if family == before:
        return
    if family not in FAMILIES:
        raise UserError(f"config.model.family={family!r} is unknown{nearest(family, FAMILIES)}")
    dropped = [name for name, value in config.model.items() if value is not None and name not in ("family", "type")]
    config.model = knobs(family)
    if before is not None:
        notes.append(f"config.model: {family} in place of {before}, whose knobs are dropped: {', '.join(dropped)}")


def _add_to_model(config: ConfigDict, name: Any, text: str) -> None:
    """A knob that `knobs` leaves out as long as it is not set: it holds a component or a tuple."""
    family = config.model.family
    if name not in (known := (*knobs_of_family(family), "head", "init_scheme")):
        raise UserError(f"config.model.{name} is no knob of {family}{nearest(str(name), known)}")
    if text == "None":
        return
    value = _json(text, f"config.model.{name}")
    config.model[name] = ConfigDict(value) if isinstance(value, dict) else value


def _set_type(node: Any, name: str, where: str, notes: list[str]) -> None:
    before = node["type"]
    if name == before:
        return
    cls, section = registered(name), where.removeprefix("config.").removesuffix(".type")
    kind = {**CHOSEN, **WITHIN}.get(section)
    if kind is not None and (cls is None or not issubclass(cls, kind)):
        raise UserError(f"{where.removesuffix('type')}{wrong_type(section, name)}")
    if cls is None or not dataclasses.is_dataclass(cls):
        raise UserError(f"{where}={name!r} is no component (one of your own: name its file with --import)")
    shared = _shared_knobs(registered(before), cls)
    hints, new = typing.get_type_hints(cls), dict[str, Any](type=name)
    for f in dataclasses.fields(cls):
        if f.name in shared:
            new |= {f.name: node[f.name]} if f.name in node else {}  # left out by a sweep, which sets it itself
        elif f.default is not dataclasses.MISSING:
            new[f.name] = f.default if isinstance(f.default, tuple) else to_dict(f.default)
        else:  # to be given as well
            new[f.name] = placeholder(hints[f.name]) if hints[f.name] in (int, float, str, bool) else None
    dropped = [knob for knob in node if knob != "type" and knob not in shared]
    for knob in list(node):
        del node[knob]
    if isinstance(node, ConfigDict):
        node.update(ConfigDict(new))
    else:
        node.update({k: None if not isinstance(v, (str, int, float, dict, list, tuple)) else v for k, v in new.items()})
    if dropped:
        own = f"own knobs are dropped: {', '.join(dropped)}" if shared else "knobs are dropped"
        notes.append(f"{where.removesuffix('.type')}: {name} in place of {before}, whose {own}")


def _shared_knobs(before: type | None, now: type) -> set[str]:
    """The knobs that two components have from a class which both are derived from: they mean the same in both."""
    common = set() if before is None else {*before.__mro__} & {*now.__mro__}
    return {f.name for cls in common if dataclasses.is_dataclass(cls) for f in dataclasses.fields(cls)}


def _given(text: str | None, where: str) -> str:
    if text is None:
        raise UserError(f"--{where} has no value: write --{where}=VALUE")
    return text


def _json(text: str, where: str) -> Any:
    """A JSON text, or what a .json file holds."""
    try:
        if text.endswith(".json"):
            text = Path(text).expanduser().read_text(encoding="utf-8")
            return json.loads(text)
        return literal(text)
    except OSError as e:
        raise UserError(f"--{where}={text}: {e.strerror}; give a JSON file or a JSON text") from e
    except ValueError as e:
        raise UserError(f"--{where}={text} is neither JSON nor the path of a .json file") from e


def _parsed(given: str | None, kind: type, now: Any, optional: bool, where: str) -> Any:
    """The value of a knob, which is of this `kind` and `now` has that value, from its text."""
    if kind is bool and given is None:
        return True
    text = _given(given, where)
    if optional and text in ("None", "none", "null"):
        return None
    if isinstance(now, (ConfigDict, Mapping)):
        value = _json(text, where)
        if not isinstance(value, Mapping) or ("type" in now and "type" not in value):
            raise UserError(f"--{where}={text}: name one of its knobs {', '.join(now)}, or give a JSON object")
        return ConfigDict(dict(value)) if isinstance(now, ConfigDict) else dict(value)
    items = "of numbers and quoted texts, as (1, 2) or (('a', 0.5),)"
    kinds = {bool: "true or false", int: "an int", float: "a number"}
    kinds |= {sequence: f"a {sequence.__name__} {items}" for sequence in (tuple, list)}
    try:
        return _read(text, kind)
    except ValueError as e:
        raise UserError(f"--{where}={text} must be {kinds[kind]}") from e


def _read(text: str, kind: type) -> Any:
    """Raises `ValueError` for what is not of this kind."""
    if kind is bool:
        if text.lower() not in (*TRUE, *FALSE):
            raise ValueError
        return text.lower() in TRUE
    if kind in (int, float, str):
        return kind(text)
    if kind in (tuple, list):
        return kind(_items(text))
    try:
        return literal(text)  # nothing says of which type it is
    except ValueError:
        return text


def _items(text: str) -> tuple:
    """(1, 2) or [1, 2] or 1,2 or words, as <a>,<b>."""
    try:
        value = literal(text)
    except ValueError:
        if text.startswith(("(", "[")):
            raise
        value = tuple(word.strip() for word in text.split(",") if word.strip())
    return tuples(value) if isinstance(value, (list, tuple)) else (value,)
