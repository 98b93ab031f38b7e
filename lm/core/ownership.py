"""The walk over a tree of components beside the tree of its parameters: which component owns what, and where.

What prints a model, binds its tensors to other names or looks for the owner of a parameter goes by it; who asks only
for components (is there one of that class?) takes `lm.core.component.components`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from lm.core.param import Tree


class Part(NamedTuple):
    """A component that another one holds.

    field: the owner's, in which it stands
    key: its name or number there, where that field is a tuple; None: it is the whole field
    path: of its parameters, below the owner's
    component: the part itself
    spec: its parameters"""

    field: str
    key: str | int | None
    path: str
    component: Any
    spec: Tree


class Visit(NamedTuple):
    """A component on the walk: the path of its parameters from the root's, and their spec."""

    path: str
    component: Any
    spec: Tree


def walk(component: Any, spec: Tree, path: str = "") -> Iterator[Visit]:
    """Every component that has parameters of its own place, owners before parts. `spec`: of the first, as
    `component.spec(...)` makes it; parameters of a layer group keep their leading axis.

    A residual's norm, say, is not met: its parameters stand in the spec of the block that it belongs to."""
    yield Visit(path, component, spec)
    for part in parts(component, spec):
        yield from walk(part.component, part.spec, f"{path}/{part.path}".lstrip("/"))


def parts(owner: Any, spec: Tree) -> Iterator[Part]:
    """What a component holds directly. The parameters of a field's component stand under the field's name, or where
    the owner's `places` say: under another name, or at each of several paths, as parts of their own; those of a tuple's
    under the names or numbers in it."""
    places = getattr(owner, "places", {})
    for field in dataclasses.fields(owner):
        value, place = getattr(owner, field.name), places.get(field.name, field.name)
        if isinstance(value, tuple):
            yield from _items(field.name, value, spec)
        elif dataclasses.is_dataclass(value):
            for path in (place,) if isinstance(place, str) else place:
                if (own := _below(spec, path)) is not None:
                    yield Part(field.name, None, path, value, own)


def _below(spec: Tree, path: str) -> Tree | None:
    for name in path.split("/"):
        if name not in spec:
            return None
        spec = spec[name]
    return spec


def _items(field: str, value: tuple, spec: Tree) -> Iterator[Part]:
    """Those in a tuple of components or of (name, component). Without parameters and without a name they are knobs."""
    held, ahead = (spec[field], f"{field}/") if isinstance(spec.get(field), dict) else (spec, "")
    if all(isinstance(v, tuple) and len(v) == 2 and dataclasses.is_dataclass(v[1]) for v in value):
        for name, part in value:
            if name in held:
                yield Part(field, name, f"{ahead}{name}", part, held[name])
    elif all(map(dataclasses.is_dataclass, value)) and all(str(i) in held for i in range(len(value))):
        for i, part in enumerate(value):
            if ahead == "" or jax.tree.leaves(held):
                yield Part(field, i, f"{ahead}{i}", part, held[str(i)])
