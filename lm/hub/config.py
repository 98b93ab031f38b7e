"""config.json, read and written: from a `model_type` to a family's knobs and back."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm.core.errors import UserError, nearest
from lm.model.attention import Attention
from lm.model.heads import Head
from lm.model.mlp import MLP, GatedMLP
from lm.zoo.build import DIALECTS, FAMILIES, build
from lm.zoo.dialect import Class, Dialect
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.names import Table


class Spelling(NamedTuple):
    """What a folder calls its tensors. `prefix`: of the base model's within those of the class; files may lack it, or
    have another of `prefixes`."""

    names: Table
    prefix: str
    prefixes: tuple[str, ...]


class Described(NamedTuple):
    """A model as config.json describes it: `config.model` for `lm.zoo.build.build`, and what its tensors are called.

    bare: the head of a file that lacks all tensors by which the class's own head pools. one_table: whether a file with
    one token table is tied, even if config.json says that it is not."""

    knobs: dict[str, Any]
    spelling: Spelling
    bare: Head | None
    one_table: bool


def read_config(config: Mapping[str, Any]) -> Described:
    """What a config.json says. Raises `UserError` for an unknown model_type or architecture, a missing size, or a value
    that is not supported: nothing that would change the outputs is passed over."""
    _check_whole(config)
    dialect, chosen = _dialect(config.get("model_type")), _class(config)
    knobs: dict[str, Any] = {"family": dialect.family}
    for field in dialect.fields:
        knobs |= field.read(config)
    knobs |= chosen.knobs
    if chosen.head:
        knobs["head"] = chosen.head(config)
    parameters = inspect.signature(FAMILIES[dialect.family].make).parameters
    for name, value in knobs.items():  # `build` takes None for "not given"
        if name in parameters and value is None and parameters[name].default not in (None, inspect.Parameter.empty):
            raise UserError(f"null is not supported for what {name!r} stands for: give a value")
    return Described(knobs, spelling(config), chosen.bare, dialect.one_table)


def spelling(config: Mapping[str, Any]) -> Spelling:
    """What the tensors of the class that a config.json names are called, whatever its sizes."""
    dialect, chosen = _dialect(config.get("model_type")), _class(config)
    names, prefix = dialect.names(config) if callable(dialect.names) else dialect.names, dialect.prefix
    if chosen.prefix:
        names = tuple((ours, re.sub(f"^{re.escape(prefix)}", chosen.prefix, theirs), x) for ours, theirs, x in names)
    prefixes = dict.fromkeys((chosen.prefix, prefix, *(c.prefix for c in dialect.classes.values())))
    return Spelling((*names, *chosen.names), chosen.prefix or prefix, tuple(p for p in prefixes if p))


def _check_whole(config: Mapping[str, Any]) -> None:
    """Raise `UserError` for a model of text and more, whose text model is described within."""
    kind, inner = config.get("model_type"), config.get("text_config")
    if str(kind) not in DIALECTS and isinstance(inner, Mapping):
        what = inner.get("model_type")
        remedy = "neither is its text model" if str(what) not in DIALECTS else "save its text model"
        raise UserError(
            f"model_type={kind!r} is a model of more than text, which is not supported: {remedy} (text_config, "
            f"model_type={what!r})" + (" in a folder of its own" if str(what) in DIALECTS else "")
        )


def _dialect(model_type: Any) -> Dialect:
    if not isinstance(model_type, str) or model_type not in DIALECTS:
        raise UserError(f"model_type={model_type!r} is not supported{nearest(str(model_type), DIALECTS, ELSEWHERE)}")
    return DIALECTS[model_type]


def _class(config: Mapping[str, Any]) -> Class:
    """The first of the model type's classes, if config.json names none."""
    classes = _dialect(config.get("model_type")).classes
    names = config.get("architectures")
    if names is None or names == []:
        return classes[next(iter(classes))]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UserError(f"architectures={names!r} is not understood: give a list with the name of one class")
    if names[0] not in classes:
        raise UserError(
            f"architectures={names!r} is not supported for {config['model_type']}{nearest(names[0], classes)}"
        )
    return classes[names[0]]


def write_config(model_type: str, knobs: Mapping[str, Any], architecture: str | None = None) -> dict[str, Any]:
    """The config.json of the model with these knobs, `family` among them, as `config.model` holds them. Of several
    classes with the model's head (`...ForTokenClassification` with two labels, `...ForQuestionAnswering`) it names the
    first, or `architecture`.

    Raises `UserError` for another family's knobs, or values that the model type cannot tell."""
    dialect = _dialect(model_type)
    family, size = knobs.get("family"), knobs.get("size")
    if family != dialect.family:
        raise UserError(f"a {family!r} is no {model_type}: choose another model_type to export to")
    parameters = inspect.signature(FAMILIES[dialect.family].make).parameters
    own = {k: v for k, v in {**(FAMILIES[family].sizes[size] if size else {}), **knobs}.items() if v is not None}
    full = {name: own.get(name, None if p.default is p.empty else p.default) for name, p in parameters.items()}
    head = own.get("head")
    model = build({"family": family} | full)
    derived = _derived(model) | {"embed_width": full.get("d_model")}  # which others derive otherwise
    for name, value in derived.items():
        if full.get(name, value) is None:
            full[name] = value
    config: dict[str, Any] = {}
    for field in dialect.fields:
        config |= field.write(full | {"head": head})
    if outputs := getattr(head, "outputs", None):
        config |= {"id2label": {str(i): f"LABEL_{i}" for i in range(outputs)}}
    if (end := getattr(head, "end", None)) is not None:
        config |= {"eos_token_id": end}
    known = [
        name
        for name, c in dialect.classes.items()
        if c.knobs.items() <= full.items()
        and (head == (c.head(config) if c.head else None) or (head and head == c.bare))
    ]
    if not known or (architecture and architecture not in known):
        named = architecture or "no class"
        raise UserError(f"{named} of {model_type} has the head {head}: choose {' or '.join(known) or 'another'}")
    known = [architecture] if architecture else known[:1]
    described = read_config(config | {"model_type": model_type, "architectures": known})
    again = described.knobs | ({"head": head} if head and head == described.bare else {})
    if build(again) != build({"family": family, "head": head} | full):
        lost = [name for name, value in full.items() if again.get(name, parameters[name].default) != value]
        what = ", ".join(f"{name}={full[name]!r}" for name in lost)
        raise UserError(f"{what} has no name in the config.json of a {model_type}: export without it")
    return {"architectures": known, "model_type": model_type, **config}


def _heads(chosen: Class, config: Mapping[str, Any]) -> list[Head | None]:
    """Those that a class may have, None being the family's own."""
    return [chosen.head(config) if chosen.head else None, *([chosen.bare] if chosen.bare else [])]


def _derived(part: Any) -> dict[str, int]:
    """Sizes that follow from others where they are not given, as the first layer has them."""
    found: dict[str, int] = {}
    if isinstance(part, Attention):
        return {"kv_heads": part.kv, "head_dim": part.head_dim}
    if isinstance(part, (MLP, GatedMLP)):
        return {"d_ff": part.d_ff}
    if dataclasses.is_dataclass(part):
        part = tuple(getattr(part, f.name) for f in dataclasses.fields(part))
    for inner in part if isinstance(part, tuple) else ():
        found = _derived(inner) | found
    return found
