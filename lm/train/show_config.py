"""A config as a person reads it: every knob with its comment, those that differ from the default marked."""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.component import names_of, registered
from lm.train import config as train_config
from lm.zoo.registry import FAMILIES, departures

MARK = "*"
WIDTH = 46  # of a knob and its value, where they leave room for that; comments stand behind


def size_notes(config: ConfigDict) -> list[str]:
    """A line about knobs that differ from the published size that `config.model` names, if any do."""
    changed = departures(config.model)
    if not changed:
        return []
    listed = ", ".join(f"{name}={here!r} (published: {there!r})" for name, (here, there) in changed.items())
    return [f"config.model: {config.model.family} {config.model.size}, but with {listed}"]


def shown(config: ConfigDict, default: Callable[[], ConfigDict] = train_config.default) -> str:
    """A line a knob, as `config.data.length = 256  # tokens per row`; `*` marks what differs from `default()`."""
    comments = comments_of(train_config.default) | comments_of(default)
    for name in (n for n in config if n in train_config.SECTIONS or n in train_config.CHOSEN):
        comments |= _of_section(name, config[name])
    for path in train_config.WITHIN:
        comments |= _of_section(path, _at(config, path))
    plain = _of_same_types(default(), config)
    lines = [f"# {MARK} differs from the default, which stands behind. --config.a.b=value changes a knob."]
    lines += [f"# {line}" for line in size_notes(config)]
    place = {path: i for i, path in enumerate(comments)}
    for path, value in sorted(_leaves(config), key=lambda knob: _place(knob[0], place)):
        if path.startswith("model."):
            name = path.removeprefix("model.")
            changed, notes = name in departures(config.model), [_of_model(config, name)]
        else:
            before = _at(plain, path)
            changed, notes = value != before, [comments.get(path, "")]
            notes += [f"default: {before!r}"] if changed and before is not MISSING else []
        text = f"{MARK if changed else ' '} config.{path} = {value!r}"
        note = "; ".join(filter(None, notes))
        lines.append(f"{text:{WIDTH}}  # {note}" if note else text)
    return "\n".join(lines)


def _of_same_types(plain: ConfigDict, config: ConfigDict) -> ConfigDict:
    """`plain`, whose optimizer and schedule have the knobs of those of `config`, with their defaults."""
    with plain.unlocked():
        for name in train_config.CHOSEN:
            cls: Any = registered(config[name].get("type"))
            if cls is not None and plain[name].type != config[name].type:
                plain[name] = ConfigDict({**train_config.as_config(cls()), "type": plain[name].type})
    return plain


def _of_section(name: str, knobs: ConfigDict) -> dict[str, str]:
    """The comments of the class that a section is read as, by knob."""
    if name in train_config.SECTIONS:
        return dict(_of_dataclass(name, train_config.SECTIONS[name]))
    kinds = ", ".join(names_of({**train_config.CHOSEN, **train_config.WITHIN}[name]))
    cls = registered(knobs.get("type"))
    return {f"{name}.type": f"of {kinds}"} | (dict(_of_dataclass(name, cls)) if cls else {})


def _of_dataclass(where: str, cls: type) -> Iterator[tuple[str, str]]:
    hints, comments = typing.get_type_hints(cls), dict[str, str]()
    for owner in reversed(cls.__mro__):
        comments |= _of_fields(owner) if dataclasses.is_dataclass(owner) else {}
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[f.name]):
            yield from _of_dataclass(f"{where}.{f.name}", hints[f.name])
        else:
            yield f"{where}.{f.name}", comments[f.name]


MISSING = object()


def _place(path: str, known: Mapping[str, int]) -> tuple[float, int, str]:
    """Where a knob is shown: as they stand in the function that makes them, the model and objective after the seed."""
    section = path.partition(".")[0]
    first = min((i for p, i in known.items() if p.partition(".")[0] == section), default=0.5)
    return first, known.get(path, 0), path


def _leaves(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every knob, those of components in lists as "a[0].b"; other lists are one value."""
    if isinstance(node, ConfigDict | Mapping):
        for name in node:
            yield from _leaves(node[name], f"{where}.{name}" if where else name)
    elif isinstance(node, list) and any(isinstance(x, Mapping | list) for x in node):
        for i, item in enumerate(node):
            yield from _leaves(item, f"{where}[{i}]")
    else:
        yield where, node


def _at(config: ConfigDict, path: str) -> Any:
    node: Any = config
    for name in path.split("."):
        if not isinstance(node, ConfigDict) or name not in node:
            return MISSING
        node = node[name]
    return node


def _of_model(config: ConfigDict, name: str) -> str:
    """What a model's knob that is not set comes to."""
    model = config.model
    size = model.get("size")
    if model.get("family") not in FAMILIES:
        return ""
    family = FAMILIES[model.family]
    if name == "size":
        return f"published: {', '.join(family.sizes)}" if family.sizes else ""
    changed = departures(model).get(name)
    if changed is not None:
        return f"published for {size}: {changed[1]!r}"
    if model.get(name, MISSING) is None:
        of_size = family.sizes[size].get(name) if size in family.sizes else None
        return "" if of_size is None else f"{of_size!r}, from size {size}"
    return ""


def comments_of(default: Callable[[], ConfigDict]) -> dict[str, str]:
    """The comments of a function that makes a config, by knob and in its order: those behind a line, or on whole lines
    above it; empty where there is none."""
    source = textwrap.dedent(inspect.getsource(default))
    comments = _comments(source)
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and re.fullmatch(r"config\.\w+", target := ast.unparse(node.targets[0])):
            section = target.removeprefix("config.")
            found[section] = _beside(comments, node.lineno, node.end_lineno)
            for inner in ast.walk(node.value):
                if isinstance(inner, ast.Dict):
                    for key, value in zip(inner.keys, inner.values, strict=True):
                        if isinstance(key, ast.Constant) and isinstance(key.value, str):
                            found[f"{section}.{key.value}"] = _beside(comments, key.lineno, value.end_lineno)
    return found


def _of_fields(cls: type) -> Mapping[str, str]:
    source = textwrap.dedent(inspect.getsource(cls))
    comments = _comments(source)
    names = {f.name for f in dataclasses.fields(cls)}
    return {
        node.target.id: _beside(comments, node.lineno, node.end_lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in names
    }


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """Line -> its comment, and whether that is all there is on the line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        t.start[0]: (t.string.lstrip("# "), not t.line[: t.start[1]].strip())
        for t in tokens
        if t.type == tokenize.COMMENT
    }


def _beside(comments: Mapping[int, tuple[str, bool]], first: int, last: int | None) -> str:
    for line in range(first, (last or first) + 1):
        if line in comments and not comments[line][1]:
            return comments[line][0]
    above: list[str] = []
    while (line := first - 1 - len(above)) in comments and comments[line][1]:
        above.insert(0, comments[line][0])
    return " ".join(above)
