"""config.json, read and written: from a `model_type` to a family's knobs and back."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm.core.component import components
from lm.core.errors import UserError, nearest
from lm.core.param import flatten
from lm.hub.model_types import MODEL_TYPES
from lm.hub.tables.format import Field, HFClass, HFFormat, Knob, Nested, naming
from lm.hub.tables.tensor_names import TensorNames
from lm.model.attention import Attention
from lm.model.heads import Head
from lm.model.mlp import MLP, GatedMLP
from lm.model.transformer import EncoderDecoder
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.registry import FAMILIES, build, checked_knob


class Spelling(NamedTuple):
    """What a folder calls its tensors. `prefix`: of the base model's within those of the class; files may lack it, or
    have another of `prefixes`."""

    names: TensorNames
    prefix: str
    prefixes: tuple[str, ...]


class Described(NamedTuple):
    """A model as config.json describes it: `config.model` for `lm.zoo.registry.build`, and what its tensors are called.

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
    for field in sorted(dialect.fields, key=lambda field: not isinstance(field, Knob)):  # which others may rely on
        with naming(field.keys, config):
            within = field.knobs if isinstance(field, Nested) else {}
            values = _checked(field.read(config), dialect.family, field.keys, config, within)
            for name in within.keys() & values.keys() & knobs.keys():
                if values[name] != knobs[name]:
                    both = f"{within[name]} tells {values[name]!r}, the other tower {knobs[name]!r}"
                    raise UserError(f"{both}, which is not supported: make them alike")
            knobs |= values
    knobs |= chosen.knobs
    if chosen.head:
        with naming(HEAD, config):
            knobs["head"] = chosen.head(config)
    _check_size(knobs, dialect.fields, config)
    return Described(knobs, spelling(config), chosen.bare, dialect.one_table)


HEAD = ("id2label", "num_labels", "eos_token_id")  # fields that classifiers read
MOST = 10**14  # parameters


def _checked(
    knobs: dict[str, Any],
    family: str,
    names: tuple[str, ...],
    config: Mapping[str, Any],
    within: Mapping[str, str],
) -> dict[str, Any]:
    """Knobs that some fields tell, if they are such as the family takes. Raises `UserError` that names the fields;
    `within`: those that tell a knob in the config of a tower."""
    parameters = inspect.signature(FAMILIES[family].make).parameters
    whole = "/".join(name for name in names if name in config) or names[0]
    for name, value in knobs.items():  # `build` takes None for "not given"
        where = within.get(name, whole)
        if value is None and parameters[name].default is not None:
            raise UserError(f"{where}=null is not supported: give a value")
        if value is not None:
            knobs = knobs | {name: checked_knob(family, name, value, where)}
    return knobs


def _check_size(knobs: Mapping[str, Any], fields: tuple[Field, ...], config: Mapping[str, Any]) -> None:
    """Raise `UserError` for sizes that do not fit one another, by their names in config.json, or fit no machine."""
    own = [field for field in fields if isinstance(field, Knob)]
    names = {field.knob: next((n for n in field.keys if n in config), field.keys[0]) for field in own}
    for within in fields:
        names |= within.knobs if isinstance(within, Nested) else {}
    try:
        total = sum(math.prod(p.shape) for _, p in flatten(build(knobs).spec()))
    except UserError as e:
        raise UserError(re.sub(r"\bmodel\.(\w+)", lambda knob: names.get(knob[1], knob[0]), str(e))) from e
    if total > MOST:
        sizes = {name: value for name, value in config.items() if isinstance(value, (int, float))}
        name = max(sizes, key=lambda name: sizes[name])
        raise UserError(f"{name}={sizes[name]} and the other sizes make {total:.1e} parameters: check them")


def spelling(config: Mapping[str, Any]) -> Spelling:
    """What the tensors of the class that a config.json names are called, whatever its sizes."""
    dialect, chosen = _dialect(config.get("model_type")), _class(config)
    names, prefix = dialect.names(config) if callable(dialect.names) else dialect.names, dialect.prefix
    if chosen.prefix:
        names = tuple((ours, re.sub(f"^{re.escape(prefix)}", chosen.prefix, theirs), x) for ours, theirs, x in names)
    prefixes = dict.fromkeys((chosen.prefix, prefix, *(c.prefix for c in dialect.classes.values())))
    prefixes |= dict.fromkeys(WITHIN if dialect.within else ())
    return Spelling((*names, *chosen.names), chosen.prefix or prefix, tuple(p for p in prefixes if p))


WITHIN = ("language_model.model.", "model.language_model.", "language_model.")  # prefixes of a text model's tensors


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the text model within one of more than text (Gemma 3's), or the same."""
    for inner, dialect in MODEL_TYPES.items():
        kind = config.get("model_type")
        if isinstance(kind, str) and kind in dialect.within and isinstance(config.get("text_config"), Mapping):
            within = dialect.within[kind] | config["text_config"]
            if within.get("model_type", inner) != inner:
                break
            outside = {name: config[name] for name in _OUTSIDE if name in config}
            base = config.get("architectures") == [f"{kind.capitalize()}Model"]
            classes = {"architectures": [next(name for name, c in dialect.classes.items() if bool(c.head) is base)]}
            return {**within, **outside, **classes, "model_type": inner}
    return dict(config)


# Fields that a whole model has beside its text_config, and that its text model goes by.
_OUTSIDE = ("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype")


def _check_whole(config: Mapping[str, Any]) -> None:
    """Raise `UserError` for a model of text and more, whose text model is described within."""
    kind, inner = config.get("model_type"), config.get("text_config")
    if str(kind) not in MODEL_TYPES and isinstance(inner, Mapping):
        what = inner.get("model_type")
        remedy = "neither is its text model" if str(what) not in MODEL_TYPES else "save its text model"
        raise UserError(
            f"model_type={kind!r} is a model of more than text, which is not supported: {remedy} (text_config, "
            f"model_type={what!r})" + (" in a folder of its own" if str(what) in MODEL_TYPES else "")
        )


def _dialect(model_type: Any) -> HFFormat:
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise UserError(f"model_type={model_type!r} is not supported{nearest(str(model_type), MODEL_TYPES, ELSEWHERE)}")
    return MODEL_TYPES[model_type]


def _class(config: Mapping[str, Any]) -> HFClass:
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
    below = _derived(model.decoder) if isinstance(model, EncoderDecoder) else {}
    derived: dict[str, Any] = _derived(model) | {f"decoder_{name}": value for name, value in below.items()}
    derived |= {"embed_width": full.get("d_model")}  # which others derive otherwise
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


def _heads(chosen: HFClass, config: Mapping[str, Any]) -> list[Head | None]:
    """Those that a class may have, None being the family's own."""
    return [chosen.head(config) if chosen.head else None, *([chosen.bare] if chosen.bare else [])]


def _derived(model: Any) -> dict[str, int]:
    """Sizes that follow from others where they are not given, as the first layer has them."""
    found: dict[str, int] = {}
    for part in components(model):
        if isinstance(part, Attention):
            found = {"kv_heads": part.kv, "head_dim": part.head_dim} | found
        elif isinstance(part, (MLP, GatedMLP)):
            found = {"d_ff": part.d_ff} | found
    return found
