"""Components: frozen dataclasses that hold hyperparameters only, and their JSON form.

An architecture is a tree of components. It can be compared, hashed, printed and written as JSON:
`{"type": "Attention", "heads": 12, ...}`; `from_dict` turns that back into the tree and names the nearest right
key, type or value when something is off.

The name after "type" stays in files for years, so it is declared: the class's own name, or another one with
`@component(name=..)`. A class that replaces another or is renamed lists the former names with `was=(..)`: `from_dict`
reads all of them and `to_dict` writes the current one. Knob names are stored too: where knobs are renamed or regrouped,
`upgrade=` turns knobs of any earlier version into the current ones.
"""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, dataclass_transform, overload

from lm.core.errors import UserError, nearest
from lm.core.ranges import AT_LEAST_1, BELOW_1, FINITE, NOT_NEGATIVE, POSITIVE, Range

T = TypeVar("T")
# A component as it was stored at some time, "type" among its keys -> the same in today's knobs. See `component`.
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
_registry: dict[str, type] = {}  # by stored name, current and former

# What numbers may be, by the knob's name, which means the same in every component and family. All others: finite.
RANGES: dict[str, Range] = {
    **dict.fromkeys(("dropout", "smoothing"), BELOW_1),
    **dict.fromkeys(("theta", "base"), POSITIVE),
    **dict.fromkeys(("eps", "z_loss", "std", "share"), NOT_NEGATIVE),
    **dict.fromkeys(("layers", "d_model", "d_ff", "heads", "kv_heads", "head_dim"), AT_LEAST_1),
    **dict.fromkeys(("vocab", "context", "experts", "chunk"), AT_LEAST_1),
}


class Definition(NamedTuple):
    """Where a component's class is written."""

    module: str | None  # by which it can be imported; None: a file that has no such name
    file: str | None  # None: not in a file (a notebook's cell, `python -c`)

    def __str__(self) -> str:
        return self.file or self.module or "a notebook or on a command line"


@overload
def component(cls: type[T], /) -> type[T]: ...
@overload
def component(
    *, name: str | None = None, was: tuple[str, ...] = (), upgrade: Upgrade | None = None
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def component(
    cls: type | None = None,
    /,
    *,
    name: str | None = None,
    was: tuple[str, ...] = (),
    upgrade: Upgrade | None = None,
) -> Any:
    """Class decorator: a frozen dataclass that `from_dict` finds by its stored name or a former one.

    name: the stored name, if it differs from the class's;
    was: former names, or those of components it replaces, which files may still contain;
    upgrade: turns stored knobs into the current ones: `renamed(old="new")`, or a function of the stored dict. The dict
        may come from any version, including the current one, which must be left unchanged. Its values are not upgraded
        or checked yet. If the result has another "type", that component continues the upgrade. Subclasses inherit the
        upgrade along with the knobs.

    Raises `UserError` if another component has one of these names."""

    def declare(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        stored = cls.__name__ if name is None else name
        for claimed in (stored, *was):
            if claimed in _registry and not _again(cls, _registry[claimed]):
                raise UserError(_two(claimed, _registry[claimed], cls))
        setattr(cls, _STORED, (stored, *was))
        setattr(cls, _UPGRADE, upgrade)
        _registry.update(dict.fromkeys((stored, *was), cls))
        return cls

    return declare if cls is None else declare(cls)


_STORED, _UPGRADE = "_stored_names", "_upgrade"  # attributes of a component's class


def renamed(**now: str) -> Upgrade:
    """The upgrade for renamed knobs: `renamed(old="new")`."""

    def upgrade(stored: dict[str, Any]) -> dict[str, Any]:
        return {now[k] if k in now and now[k] not in stored else k: v for k, v in stored.items()}

    return upgrade


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored component of any version with its current name and knob names; the knobs' values are left alone, and so
    is an unknown component."""
    now = dict(stored)
    if (cls := registered(now.get("type"))) is None:
        return now
    for owner in reversed(cls.__mro__):
        if upgrade := vars(owner).get(_UPGRADE):
            now = upgrade(now)
    if registered(now["type"]) is not cls:
        return upgraded(now)
    return now | {"type": stored_names(cls)[0]}


def _again(cls: type, before: type) -> bool:
    """Whether `cls` is the class `before` defined again (a file loaded twice, a notebook cell rerun)."""
    here, there = definition(cls), definition(before)
    same_place = here.file == there.file and (here.file is not None or here.module == there.module)
    return same_place and cls.__qualname__ == before.__qualname__


def _two(name: str, before: type, now: type) -> str:
    both = [f"{cls.__name__} in {definition(cls)}" for cls in (before, now)]
    if before.__name__ == now.__name__ == name:
        return f"two components are named {name}, one in {definition(before)}, one in {definition(now)}: rename one"
    return f"two components claim the stored name {name}, {both[0]} and {both[1]}: take it out of name= or was= of one"


def stored_names(cls: type) -> tuple[str, ...]:
    """The stored name of a component class, followed by its former names."""
    return vars(cls).get(_STORED, (cls.__name__,))


def definition(cls: type) -> Definition:
    """Where a class is defined."""
    module = sys.modules.get(cls.__module__)
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    # A file loaded by its path is identified by that path.
    name = None if file is None or spec is None or cls.__module__ in ("__main__", file) else cls.__module__
    return Definition(name, file)


def registered(name: Any) -> type | None:
    """The component class of that stored name, present or former, if its module has been imported."""
    return _registry.get(name) if isinstance(name, str) else None


def known() -> list[type]:
    """Every component class that has been imported."""
    return list(dict.fromkeys(_registry.values()))


def names_of(kind: type) -> list[str]:
    """The stored names of the components derived from that class, as far as their modules have been imported."""
    return sorted({stored_names(cls)[0] for cls in known() if issubclass(cls, kind)})


def to_dict(value: Any) -> Any:
    """A component tree as plain dicts, lists and scalars, ready for JSON or ConfigDict."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        knobs = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": stored_names(type(value))[0], **knobs}
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


def with_knobs(tree: T, change: Callable[[str, Any], Any]) -> T:
    """The tree of components with `change(name, value)` as the value of each knob, parts before their owners."""
    if isinstance(tree, tuple):
        return tuple(with_knobs(item, change) for item in tree)  # type: ignore[return-value]
    if not dataclasses.is_dataclass(tree) or isinstance(tree, type):
        return tree
    knobs = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    now = {name: change(name, with_knobs(value, change)) for name, value in knobs.items()}
    return dataclasses.replace(tree, **now) if now != knobs else tree


def from_dict(value: Any, where: str = "model") -> Any:
    """The component tree that this or an earlier version of `to_dict` wrote. `where` is its path in error messages.

    Raises `UserError` on an unknown type or key, a missing key or a value of the wrong type."""
    if isinstance(value, (list, tuple)):
        return tuple(from_dict(v, f"{where}[{i}]") for i, v in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    knobs = upgraded(value)
    kind = knobs.pop("type", None)
    cls = registered(kind)
    if cls is None:
        hint = nearest(str(kind), _registry)
        raise UserError(f"{where}.type={kind!r} is no component{hint} (one of your own: name its file with --import)")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in knobs:
        if name not in fields:
            raise UserError(f"{where}.{name} is no knob of {kind}{nearest(name, fields)}")
    for f in fields.values():
        if f.name not in knobs and f.default is f.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} is a {kind} without its knob {f.name!r}: add it")
    hints = typing.get_type_hints(cls, include_extras=True)
    return cls(**{k: checked(from_dict(v, f"{where}.{k}"), hints[k], f"{where}.{k}") for k, v in knobs.items()})


def canonical(saved: Any) -> Any:
    """Output of an earlier `to_dict` as the current one would write it: components and knobs get their current names,
    and new knobs their defaults. Nothing is checked, and unknown components are left alone."""
    if isinstance(saved, (list, tuple)):
        return [canonical(v) for v in saved]
    if not isinstance(saved, Mapping):
        return saved
    knobs = {k: canonical(v) for k, v in upgraded(saved).items()}
    if (cls := registered(knobs.get("type"))) is None:
        return knobs
    for f in dataclasses.fields(cls):
        if f.default is not dataclasses.MISSING:
            knobs.setdefault(f.name, to_dict(f.default))
    return knobs


def checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it suits the type hint (an int is accepted, and converted, where a float is due) and is in its range:
    that of the hint (`lm.core.ranges.Share`), or else the one that goes with the knob's name."""
    allowed_range = RANGES.get(where.rpartition(".")[2], FINITE)
    if typing.get_origin(hint) is typing.Literal:
        return _one_of(value, typing.get_args(hint), where)
    allowed = list(typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,))
    for i, member in enumerate(allowed):
        if typing.get_origin(member) is typing.Annotated:  # also as in `Count | None`
            allowed[i], allowed_range, *_ = typing.get_args(member)
    plain = [typing.get_origin(t) or t for t in allowed]
    if any(t is Any or not isinstance(t, type) for t in plain):
        return value  # anything with the right methods
    if float in plain and type(value) is int and int not in plain:
        value = float(value)
    if (type(value) is bool and bool not in plain) or not isinstance(value, tuple(plain)):
        names = " or ".join("None" if t is type(None) else t.__name__ for t in plain)
        raise UserError(f"{where}={value!r} is a {type(value).__name__}; it must be {names}")
    if isinstance(value, tuple) and (items := typing.get_args(allowed[plain.index(tuple)])):
        return _checked_items(value, items, where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return in_range(value, allowed_range, where)
    return value


def _one_of(value: T, known: tuple[T, ...], where: str) -> T:
    if value not in known:
        raise UserError(f"{where}={value!r} must be one of {', '.join(map(str, known))}")
    return value


def in_range(value: T, allowed: Range, where: str) -> T:
    """`value`, if it is in the range. Raises `UserError`."""
    if value not in allowed:
        also = f", {allowed}" if allowed != FINITE else ""
        finite = not isinstance(value, float) or math.isfinite(value)
        raise UserError(f"{where}={value!r} must be {allowed if finite else f'a finite number{also}'}")
    return value


def _checked_items(values: tuple, hints: tuple, where: str) -> tuple:
    """Each item of a tuple, against `tuple[X, ...]` or `tuple[X, Y]`."""
    if hints[1:] == (...,):
        hints = hints[:1] * len(values)
    if len(values) != len(hints):
        raise UserError(f"{where} has {len(values)} items; it must have {len(hints)}")
    return tuple(checked(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(values, hints, strict=True)))
