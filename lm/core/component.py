"""Components: frozen dataclasses that hold hyperparameters only, and their JSON form.

An architecture is a tree of components. It can be compared, hashed, printed and written as JSON:
`{"type": "Attention", "heads": 12, ...}`; `from_dict` turns that back into the tree and names the nearest right
key, type or value when something is off.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, dataclass_transform

from lm.core.errors import UserError, nearest

T = TypeVar("T")
_registry: dict[str, type] = {}


@dataclass_transform(frozen_default=True)
def component(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose name is known to `from_dict`."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    if cls.__name__ in _registry and _registry[cls.__name__].__module__ != cls.__module__:
        raise TypeError(f"two components are named {cls.__name__}: {_registry[cls.__name__]} and {cls}")
    _registry[cls.__name__] = cls
    return cls


def to_dict(value: Any) -> Any:
    """A component tree as plain dicts, lists and scalars, ready for JSON or ConfigDict."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        knobs = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **knobs}
    if isinstance(value, tuple):
        return [to_dict(v) for v in value]
    return value


def components(tree: Any) -> Iterator[Any]:
    """Every component in a tree of them, itself first."""
    if isinstance(tree, tuple):
        for item in tree:
            yield from components(item)
    elif dataclasses.is_dataclass(tree):
        yield tree
        for f in dataclasses.fields(tree):
            yield from components(getattr(tree, f.name))


def from_dict(value: Any, where: str = "model") -> Any:
    """The component tree that `to_dict` wrote. `where` names the place in error messages.

    Raises `UserError` on an unknown type or key, a missing key or a value of the wrong type."""
    if isinstance(value, (list, tuple)):
        return tuple(from_dict(v, f"{where}[{i}]") for i, v in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    knobs = dict(value)
    kind = knobs.pop("type", None)
    if kind not in _registry:
        raise UserError(f"{where}.type={kind!r} is no component{nearest(str(kind), _registry)}")
    cls = _registry[kind]
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in knobs:
        if name not in fields:
            raise UserError(f"{where}.{name} is no knob of {kind}{nearest(name, fields)}")
    for f in fields.values():
        if f.name not in knobs and f.default is f.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} is a {kind} without its knob {f.name!r}: add it")
    hints = typing.get_type_hints(cls)
    return cls(**{k: checked(from_dict(v, f"{where}.{k}"), hints[k], f"{where}.{k}") for k, v in knobs.items()})


def checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it suits the type hint (an int is accepted, and converted, where a float is due)."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = [typing.get_origin(t) or t for t in allowed]
    if any(t is Any or not isinstance(t, type) for t in plain):
        return value  # whatever offers the right methods
    if float in plain and type(value) is int and int not in plain:
        return float(value)
    if (type(value) is bool and bool not in plain) or not isinstance(value, tuple(plain)):
        names = " or ".join("None" if t is type(None) else t.__name__ for t in plain)
        raise UserError(f"{where}={value!r} is a {type(value).__name__}; it must be {names}")
    if isinstance(value, tuple) and (items := typing.get_args(allowed[plain.index(tuple)])):
        return _checked_items(value, items, where)
    return value


def _checked_items(values: tuple, hints: tuple, where: str) -> tuple:
    """Each item of a tuple, against `tuple[X, ...]` or `tuple[X, Y]`."""
    if hints[1:] == (...,):
        hints = hints[:1] * len(values)
    if len(values) != len(hints):
        raise UserError(f"{where} has {len(values)} items; it must have {len(hints)}")
    return tuple(checked(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(values, hints, strict=True)))
