"""config.json, read and written: from a `model_type` to a family's knobs and back."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm.core.errors import UserError, nearest
from lm.zoo.build import DIALECTS, FAMILIES
from lm.zoo.dialect import Dialect


class Described(NamedTuple):
    """A model as config.json describes it: its dialect, and `config.model` for `lm.zoo.build.build`."""

    model_type: str
    dialect: Dialect
    knobs: dict[str, Any]


def dialect_of(model_type: Any) -> Dialect:
    if model_type not in DIALECTS:
        raise UserError(f"model_type={model_type!r} is not supported{nearest(str(model_type), DIALECTS)}")
    return DIALECTS[model_type]


def read_config(config: Mapping[str, Any]) -> Described:
    """What a config.json says. Raises `UserError` for an unknown model_type or architecture, a missing size, or a value
    that is not supported: nothing that would change the outputs is passed over."""
    model_type = config.get("model_type")
    dialect = dialect_of(model_type)
    knobs: dict[str, Any] = {"family": dialect.family}
    for field in dialect.fields:
        knobs |= field.read(config)
    architectures = config.get("architectures") or list(dialect.classes)[:1]
    if len(architectures) != 1 or architectures[0] not in dialect.classes:
        raise UserError(
            f"architectures={architectures!r} is not supported for {model_type}"
            f"{nearest(str(architectures[0]), dialect.classes)}"
        )
    return Described(str(model_type), dialect, knobs | dict(dialect.classes[architectures[0]]))


def write_config(model_type: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the model with these knobs, `family` among them, as `config.model` holds them.

    Raises `UserError` for another family's knobs, or values that the model type cannot tell."""
    dialect = dialect_of(model_type)
    family, size = knobs.get("family"), knobs.get("size")
    if family != dialect.family:
        raise UserError(f"a {family!r} is no {model_type}: choose another model_type to export to")
    parameters = inspect.signature(FAMILIES[dialect.family].make).parameters
    own = {k: v for k, v in {**(FAMILIES[family].sizes[size] if size else {}), **knobs}.items() if v is not None}
    full = {name: own.get(name, None if p.default is p.empty else p.default) for name, p in parameters.items()}
    config: dict[str, Any] = {}
    for field in dialect.fields:
        config |= field.write(full)
    known = [name for name, implied in dialect.classes.items() if implied.items() <= full.items()]
    again = read_config(config | {"model_type": model_type, "architectures": known[:1]}).knobs
    for name, value in full.items():
        if again.get(name, parameters[name].default) != value:
            raise UserError(f"{name}={value!r} has no name in the config.json of a {model_type}: export without it")
    return {"architectures": known[:1], "model_type": model_type, **config}
