"""No dead knobs in zoo functions: another value for any of them makes another model, or is refused. (That another model
computes something else is tested for components: tests/model/test_knobs.py.)"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lm.core.component import checked
from lm.core.errors import UserError
from lm.model.heads import NoHead, SequenceClassifier
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import MLP, GatedMLP
from lm.model.positions import Learned, Sinusoidal
from lm.model.rotary import FrequencyScaling, LinearScaling, Rotary
from lm.zoo.parts import GLOBAL, LOCAL
from lm.zoo.registry import FAMILIES
from tests.zoo.render import TINY

# For knobs that hold a component: those that the type hint allows are tried.
COMPONENTS = (
    LinearScaling(3.0),
    FrequencyScaling(7.0),
    RMSNorm(0.3),
    LayerNorm(0.3),
    Learned(19),
    Sinusoidal(7.0),
    Window(3),
    Bidirectional(),
    MLP(5),
    GatedMLP(5),
    NoHead(),
    SequenceClassifier(3),
    Rotary(3.0),
)


def function(make: Callable) -> Callable:
    return make.func if isinstance(make, functools.partial) else make


def settings(make: Callable) -> list[dict[str, Any]]:
    """Every knob's value in each size of each family of this function."""
    defaults = {k: p.default for k, p in inspect.signature(make).parameters.items() if p.default is not p.empty}
    return [
        {**defaults, **getattr(family.make, "keywords", {}), **size}
        for family in FAMILIES.values()
        if function(family.make) is make
        for size in (family.sizes or TINY).values()
    ]


def others(make: Callable, name: str, given: dict[str, Any]) -> Iterator[Any]:
    """Other values for a knob, by its present value and type hint."""
    value, hint = given[name], typing.get_type_hints(make)[name]
    kinds = {typing.get_origin(t) or t for t in (typing.get_args(hint) or (hint,))}
    if typing.get_origin(hint) is tuple:
        kinds = {tuple}
    if isinstance(value, bool) or (value is None and bool in kinds):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, 2 * value, value // 2 if isinstance(value, int) else value / 3)
    elif isinstance(value, str):
        yield from ("relu", "silu", *named(outcome(make, given | {name: "?"})))
    elif value is None and kinds & {int, float}:
        yield from ((16, 48, 2) if int in kinds else (0.37,))
    elif value is None and str in kinds:
        yield from ("relu", *named(outcome(make, given | {name: "?"})))
    elif isinstance(value, tuple) and value:
        yield from (value[:-1], value[:-1] + (value[0],), value[:0:-1] + value[:1])
    elif value is not None and type(None) in kinds:
        yield None
    if tuple in kinds and not value:
        layers = given.get("layers", 1)
        yield from ((LOCAL,) * layers, (GLOBAL, LOCAL) * (layers // 2), (1,), (100, 200), ("q",))
    for component in COMPONENTS:
        try:
            yield checked(component, hint, "knob")
        except UserError:
            continue


def outcome(make: Callable, knobs: dict[str, Any]) -> Any:
    """The model, or the refusal."""
    try:
        return make(**knobs)
    except UserError as e:
        return str(e)


def named(refusal: Any) -> list[str]:
    """The values that a refusal lists, and one that is none of them."""
    return ["?", *(str(refusal).partition("known: ")[2].split(", ") if isinstance(refusal, str) else [])]


def alive(make: Callable, name: str) -> bool:
    """Whether some other value of a knob matters in some size, if need be beside another knob's other value (the base
    of the local layers' rotation beside local layers)."""

    def changed(given: dict[str, Any]) -> bool:
        now = outcome(make, given)
        return any(outcome(make, given | {name: v}) != now for v in others(make, name, given) if v != given[name])

    return any(map(changed, settings(make))) or any(
        changed(together)
        for given in settings(make)
        for beside in given.keys() - {name}
        for together in ({**given, beside: other} for other in others(make, beside, given))
        if not isinstance(outcome(make, together), str)
    )


FUNCTIONS = [function(family.make) for family in FAMILIES.values()]
MAKES = {f"{make.__module__.rpartition('.')[2]}.{make.__name__}": make for make in FUNCTIONS}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_no_knob_is_dead(make):
    dead = [name for name in inspect.signature(make).parameters if not alive(make, name)]
    assert not dead, f"{make.__name__} takes {', '.join(dead)}, and nothing comes of it"


def test_a_dead_knob_is_found():
    def ignores(*, layers: int, window: int = 4) -> int:
        return layers

    family = next(iter(FAMILIES.values()))._replace(make=ignores, sizes={"small": {"layers": 2}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "ignores", family)
        with pytest.raises(AssertionError, match="ignores takes window"):
            test_no_knob_is_dead(ignores)
