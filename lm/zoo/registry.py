"""From a family's name and knobs to a model."""

import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections.config_dict import ConfigDict, placeholder

from lm import zoo
from lm.adapt.init_schemes import InitScheme
from lm.core.component import checked, from_dict, to_dict
from lm.core.errors import UserError, nearest
from lm.model.heads import Head
from lm.model.transformer import Model, with_head
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.family import Family

# Every file of this folder that has FAMILIES.
MODULES = [
    module
    for found in pkgutil.iter_modules(zoo.__path__)
    if hasattr(module := importlib.import_module(f"{zoo.__name__}.{found.name}"), "FAMILIES")
]
FAMILIES: dict[str, Family] = {name: family for module in MODULES for name, family in module.FAMILIES.items()}


OF_ALL = ("size", "head", "init_scheme")  # knobs that every family has


def knobs(family: str, **given: Any) -> ConfigDict:
    """`config.model` for a family: every knob of its zoo function, so that each can be set from the command line. Those
    not given keep their defaults; None means "not set": of those that some size sets, `size` decides.

    Raises `UserError` for an unknown family, size or knob."""
    _known(family, given.get("size"))
    parameters = inspect.signature(FAMILIES[family].make).parameters
    for name in given:
        if name not in (*parameters, *OF_ALL):
            raise UserError(f"model.{name} is no knob of {family}{nearest(name, parameters)}")
    hints = typing.get_type_hints(_function(FAMILIES[family].make))
    config = ConfigDict({"family": family, "size": placeholder(str)})
    sized = {name for knobs_of_size in FAMILIES[family].sizes.values() for name in knobs_of_size}
    for name, parameter in parameters.items():
        unset = name in sized or parameter.default is inspect.Parameter.empty
        value = given.pop(name, None if unset else parameter.default)
        plain = next(
            (t for t in (typing.get_args(hints[name]) or (hints[name],)) if t in (int, float, str, bool)), None
        )
        if value is not None or plain is not None:  # a component that is not set has no knobs to show
            config[name] = placeholder(plain) if value is None else to_dict(value)
    for name, value in given.items():
        config[name] = value
    return config


def _known(name: Any, size: Any) -> Family:
    """The family of that name, which has the size. Raises `UserError`."""
    if name not in FAMILIES:
        raise UserError(f"model.family={name!r} is unknown{nearest(str(name), FAMILIES, ELSEWHERE)}")
    if size is not None and size not in FAMILIES[name].sizes:
        raise UserError(f"model.size={size!r} is no size of {name}{nearest(str(size), FAMILIES[name].sizes)}")
    return FAMILIES[name]


def knobs_of_family(family: str) -> tuple[str, ...]:
    """The names of the knobs of a family's zoo function, and `size`."""
    return ("size", *inspect.signature(_known(family, None).make).parameters)


def departures(knobs: Mapping[str, Any] | ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Where `config.model` names a published size and sets knobs to other values than that has: {knob: (value here,
    published)}. A published value that is the zoo function's default counts as well."""
    given = knobs.to_dict() if isinstance(knobs, ConfigDict) else dict(knobs)
    if given.get("size") is None or given.get("family") not in FAMILIES:
        return {}
    family = _known(given["family"], given["size"])
    defaults = {k: p.default for k, p in inspect.signature(family.make).parameters.items()}
    published = {k: to_dict(v) for k, v in (defaults | dict(family.sizes[given["size"]])).items()}
    own = {k: to_dict(v) for k, v in given.items() if v is not None and k in published}
    return {k: (v, published[k]) for k, v in own.items() if v != published[k]}


def _function(make: Callable) -> Callable:
    return getattr(make, "func", make)


# Knobs that are counts and may be 0, where that means none.
MAYBE_NONE = frozenset(
    """buckets clamp conv_width experts first_dense further last mask_decoder max_global memory norms offset reuse
    separator shared shared_ff tasks types window""".split()  # noqa: SIM905
)
MANY = frozenset(  # knobs of which a model makes as many parts
    "decoder_heads decoder_layers groups heads inner kv_heads layers random_blocks streams".split()  # noqa: SIM905
)
MOST_PARTS, MOST = 1024, 2**31 - 1  # far beyond what anyone trains


def checked_knob(family: str, knob: str, value: Any, where: str) -> Any:
    """The value of a family's knob, if it has the type that the zoo function asks for and is no impossible number: a
    count below 1 (or 0), a scale below 0. Raises `UserError`, in which `where` names the value's place."""
    value = checked(value, typing.get_type_hints(_function(FAMILIES[family].make))[knob], where)
    if isinstance(value, int) and not isinstance(value, bool):
        least, most = int(knob.removeprefix("decoder_") not in MAYBE_NONE), MOST_PARTS if knob in MANY else MOST
        if not least <= value <= most:
            raise UserError(f"{where}={value} must be at {f'least {least}' if value < least else f'most {most}'}")
    elif isinstance(value, float) and not 0 <= value < math.inf:
        raise UserError(f"{where}={value} must be a number of at least 0")
    return value


def build(knobs: Mapping[str, Any] | ConfigDict) -> Model:
    """The model that `config.model` describes: {"family", "size" (optional), further knobs of the zoo function}, or a
    whole tree as `lm.core.component.to_dict` writes it ({"type": "LanguageModel", ...}). With a family may stand
    "head", a component in place of the family's own, and "init_scheme", of all initial values
    (`lm.adapt.init_schemes`).

    Raises `UserError` for an unknown family, size or knob, a missing knob or a value of the wrong type."""
    given_knobs = knobs.to_dict() if isinstance(knobs, ConfigDict) else dict(knobs)
    if "type" in given_knobs:
        return from_dict(given_knobs)
    rest = {k: v for k, v in given_knobs.items() if v is not None}
    name, size = rest.pop("family", None), rest.pop("size", None)
    family = _known(name, size)
    head, scheme = rest.pop("head", None), rest.pop("init_scheme", None)
    given = {**(family.sizes[size] if size else {}), **rest}
    known = inspect.signature(family.make).parameters
    for knob, value in given.items():
        if knob not in known:
            raise UserError(f"model.{knob} is no knob of {name}{nearest(knob, known)}")
        given[knob] = checked_knob(name, knob, from_dict(value, f"model.{knob}"), f"model.{knob}")
    missing = [k for k, p in known.items() if p.default is inspect.Parameter.empty and k not in given]
    if missing:
        sizes = f", or a size ({', '.join(family.sizes)})" if family.sizes else ""
        raise UserError(f"model family {name} needs model.{missing[0]}: give it{sizes}")
    model = family.make(**given)
    if head is not None:
        model = with_head(model, checked(from_dict(head, "model.head"), Head, "model.head"))
    if scheme is not None:
        made = from_dict(scheme, "model.init_scheme")
        model = checked(made, InitScheme, "model.init_scheme").reinitialized(model)
    return model
