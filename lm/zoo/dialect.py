"""The vocabulary of dialects: how a Hugging Face config.json tells the knobs of a zoo function, read both ways.

A dialect belongs to one `model_type` and lists its fields. `knobs_of` reads a config with it, `config_of` writes one.
Every field that the model type has stands in the list: as a knob, as a value that is the only one supported (`Fixed`),
or as one that does not touch the computation (`Unused`). A field that is not in the list is none of the model type's.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from lm.core.errors import UserError, nearest
from lm.model.heads import Head, NoHead, SequenceClassifier, TokenClassifier
from lm.zoo.names import TensorNames, rows
from lm.zoo.parts import layers_of

Config = Mapping[str, Any]
Knobs = dict[str, Any]
REQUIRED = object()


class Field(Protocol):
    """Some keys of config.json, and the knobs that they tell."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, config: Config) -> Knobs: ...

    def write(self, knobs: Knobs) -> dict[str, Any]: ...


class Class(NamedTuple):
    """One of a model type's classes: the knobs that it implies, its head, given the config (None: the family's own),
    what the tensors of that head are called, the prefix of the base model's, if not the dialect's, and the head of a
    file that lacks all by which `head` pools."""

    knobs: Config = MappingProxyType({})
    head: Callable[[Config], Head] | None = None
    names: TensorNames = ()
    prefix: str | None = None
    bare: Head | None = None


class Dialect(NamedTuple):
    """What a `model_type` calls a family's knobs and tensors. `classes`: by their names in `architectures`; the first
    that fits is written. `names` may depend on the config. `prefix`: of a base model's tensors within one with a head;
    files may lack it. `one_table`: a file with one token table is tied, even if tie_word_embeddings is false (of T5 it
    says something else). `within`: model types of more than text whose text_config tells a model of this one, which
    reads text as they do -> fields that are left out there, with their values."""

    family: str
    classes: Mapping[str, Class]
    fields: tuple[Field, ...]
    names: TensorNames | Callable[[Config], TensorNames]
    prefix: str = "model."
    one_table: bool = False
    within: Mapping[str, Config] = MappingProxyType({})


def labels(config: Config) -> int:
    """How many labels a classifier tells apart."""
    return len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)


def number(
    name: str, value: Any, *, above: float | None = None, most: float | None = None, whole: bool = False
) -> float:
    """The value of a field that is a number. Raises `UserError`, which names the field, for what is none or is out of
    bounds."""
    what = "whole number" if whole else "number"
    what += f" above {above:g}" if above is not None else ""
    what += f" up to {most:g}" if most is not None else ""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{name}={value!r} is not understood: give a {what}")
    if (above is not None and value <= above) or (most is not None and value > most) or (whole and value != int(value)):
        raise UserError(f"{name}={value!r} is not supported: give a {what}")
    return float(value)


def count(name: str) -> Callable[[Any], int]:
    """Reads a field that is a whole number from 1 on."""
    return lambda value: int(number(name, value, above=0, whole=True))


BASE = Class(head=lambda config: NoHead())
SEQUENCE = Class(  # of generators: by the state of a row's last token
    head=lambda config: SequenceClassifier(labels(config), at="last", bias=False),
    names=rows("head/", "", ("out", "score")),
)
ANSWERS = Class(head=lambda config: TokenClassifier(2), names=rows("head/", "", ("out", "qa_outputs")))


def token_labels(name: str) -> Class:
    """A classifier of each token, whose linear map has that name."""
    return Class(head=lambda config: TokenClassifier(labels(config)), names=rows("head/", "", ("out", name)))


def generators(
    stem: str,
    lm: str = "ForCausalLM",
    base: str = "Model",
    sequences: bool = True,
    tokens: str | None = "score",
    answers: Class | None = None,
) -> dict[str, Class]:
    """The classes of a generator: language model, base model and, where there are such, classifiers of rows (by their
    last tokens' states) and of tokens (whose linear map is called `tokens`), and of answers' ends."""
    found = {f"{stem}{lm}": Class(), f"{stem}{base}": BASE}
    found |= {f"{stem}ForSequenceClassification": SEQUENCE} if sequences else {}
    found |= {f"{stem}ForTokenClassification": token_labels(tokens)} if tokens else {}
    return found | ({f"{stem}ForQuestionAnswering": answers} if answers else {})


@dataclasses.dataclass(frozen=True)
class Knob:
    """One key for one knob. Without a default the key must be there; with `to` and `back` values are translated. Of
    several `theirs` the first is written and any is read."""

    ours: str
    theirs: str | tuple[str, ...]
    default: Any = REQUIRED
    to: Callable[[Any], Any] = lambda value: value
    back: Callable[[Any], Any] = lambda value: value

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def read(self, config: Config) -> Knobs:
        told = [n for n in self.names if config.get(n) is not None] or [n for n in self.names if n in config]
        name, *others = told or self.names
        value = config.get(name, self.default)
        for other in others:
            if config.get(other, value) != value:  # as transformers knows both names of one field
                both = f"{name}={value!r} and {other}={config[other]!r}"
                raise UserError(f"{both} are the same thing: give one of them, or both alike")
        if value is REQUIRED:
            raise UserError(f"{name!r} is missing: give a config.json with all sizes")
        try:
            return {self.ours: self.to(value)}
        except UserError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise UserError(f"{name}={value!r} is not understood ({type(e).__name__}: {e})") from e

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {self.names[0]: self.back(knobs[self.ours])}


def flag(ours: str, theirs: str, default: bool) -> Knob:
    """A knob that holds whether something is so, of which null means that it is not, as transformers has it."""
    return Knob(ours, theirs, default, lambda value: False if value is None else value)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A key of which only some values are supported. The first is what it means if absent or null, and what is
    written."""

    name: str
    values: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def read(self, config: Config) -> Knobs:
        value = config.get(self.name)
        value = self.values[0] if value is None else value
        if not any(value == v and type(value) is type(v) for v in self.values):
            known = " or ".join(map(repr, self.values))
            raise UserError(f"{self.name}={value!r} is not supported, only {known}")
        return {}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {self.name: self.values[0]}


@dataclasses.dataclass(frozen=True, init=False)
class Unused:
    """Keys that do not touch the outputs: dropout and initialisation (training has its own knobs), output options."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def read(self, config: Config) -> Knobs:
        return {}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {}


class Custom(NamedTuple):
    """Several keys at once, by functions of its own."""

    names: tuple[str, ...]
    read: Callable[[Config], Knobs]
    write: Callable[[Knobs], dict[str, Any]]


def layer_kinds(pattern: int) -> Custom:
    """The knobs `layer_types` and `pattern`: which layers have a window. In older files the last layer of each period
    has none, `pattern` being the length of one where nothing is said."""
    periods = ("sliding_window_pattern", "_sliding_window_pattern")

    def read(config: Config) -> Knobs:
        told = (config.get(name) for name in periods)
        period = next((value for value in told if value is not None), pattern)
        kinds = config.get("layer_types")
        return {"layer_types": layers_of((), config["num_hidden_layers"], period) if kinds is None else tuple(kinds)}

    def write(knobs: Knobs) -> dict[str, Any]:
        return {"layer_types": list(layers_of(knobs["layer_types"], knobs["layers"], knobs["pattern"]))}

    return Custom(("layer_types", *periods), read, write)


@contextlib.contextmanager
def naming(names: tuple[str, ...], config: Config, within: str = "") -> Iterator[None]:
    """What goes wrong where these fields are read, in one line that names them; `within`: the field that holds them."""
    where = f"{within}: " if within else ""
    try:
        yield
    except UserError as e:
        if not within:
            raise
        raise UserError(f"{where}{e}") from e
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        told = ", ".join(f"{name}={config[name]!r}" for name in names if name in config)
        raise UserError(f"{where}{told or names[0]} is not understood ({type(e).__name__}: {e})") from e


@dataclasses.dataclass(frozen=True)
class Nested:
    """A config of its own in the field `key`, that of one tower, whose `model_type` is one of `kinds` and has those
    fields. They tell the knobs that stand behind `prefix` here, but for those in `whole`. Written are the first kind
    or, of several, what `kind` says of the knobs; a knob that holds None is that of the other tower, without prefix."""

    key: str
    kinds: Mapping[str, tuple[Field, ...]]
    prefix: str = ""
    whole: tuple[str, ...] = ()
    kind: Callable[[Knobs], str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *(f"{self.key}.{name}" for fields in self.kinds.values() for f in fields for name in f.names))

    @property
    def knobs(self) -> dict[str, str]:
        """Its knobs, and the fields that tell them."""
        told = [f for fields in self.kinds.values() for f in fields if isinstance(f, Knob)]
        return {self._ours(f.ours): f"{self.key}.{f.names[0]}" for f in told}

    def _ours(self, knob: str) -> str:
        return knob if knob in self.whole else self.prefix + knob

    def read(self, config: Config) -> Knobs:
        inner = config.get(self.key)
        if not isinstance(inner, Mapping):
            raise UserError(f"{self.key}={inner!r} is not understood: give the config of that tower, a dict")
        kind = inner.get("model_type", next(iter(self.kinds)))
        if kind not in [*self.kinds]:
            raise UserError(f"{self.key}: model_type={kind!r} is not supported{nearest(str(kind), self.kinds)}")
        found: Knobs = {}
        for field in self.kinds[kind]:
            with naming(field.names, inner, self.key):
                found |= field.read(inner)
        return {self._ours(name): value for name, value in found.items()}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        own = {n.removeprefix(self.prefix): v for n, v in knobs.items() if n.startswith(self.prefix) and v is not None}
        own = knobs | own
        kind = self.kind(own) if self.kind else next(iter(self.kinds))
        inner = {"model_type": kind}
        for field in self.kinds[kind]:
            inner |= field.write(own)
        return {self.key: inner}


# Fields of heads for multiple choice, which are not read.
SUMMARY = tuple(f"summary_{x}" for x in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"))

# Names of activations there and here; `gelu_new` and `gelu_pytorch_tanh` are the same.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def act(ours: str, theirs: str, default: str, names: Mapping[str, str] = ACTIVATIONS) -> Knob:
    """A knob that holds the name of an activation."""

    def to(name: str) -> str:
        if name not in names:
            raise UserError(f"{theirs}={name!r} is an unknown activation{nearest(str(name), names)}")
        return names[name]

    return Knob(ours, theirs, default, to, lambda name: next(k for k, v in names.items() if v == name))


def layers_heads(d_model: str, layers: str, heads: str, d_ff: str | None = None) -> tuple[Knob, ...]:
    """The sizes that all families have; the modern names stand for any of them."""
    sizes = (
        Knob("d_model", (d_model, "hidden_size")),
        Knob("layers", (layers, "num_hidden_layers")),
        Knob("heads", (heads, "num_attention_heads")),
    )
    return (*sizes, Knob("d_ff", d_ff)) if d_ff else sizes
