"""The vocabulary in which a dialect is written: what the config.json of a Hugging Face `model_type` calls the knobs of
a zoo function, read both ways. `lm/hub/dialects/` has a file for each model type, or for a few that share their tables:

    MODEL_TYPES = {
        "tiny": HFFormat(  # "model_type": "tiny"
            "llama",  # the family in lm.zoo whose knobs these are
            generation_classes("Tiny"),  # TinyForCausalLM, TinyModel, TinyForSequenceClassification
            (
                *size_fields("n_embd", "n_layer", "n_head"),  # "n_embd": 64 <-> d_model=64, and so on
                Knob("vocab", "vocab_size", 32000),  # 32000 where config.json does not say
                Knob("tied", "untie", False, lambda x: not x, lambda x: not x),  # translated both ways
                activation("hidden_act", "silu"),  # "gelu_new" <-> activation="gelu_tanh"
                Rope(longest=4096),  # rope_theta, rope_scaling and so on <-> theta, scaling
                Fixed("use_bias", (False,)),  # refused if true: there is no such model here
                Unused("attention_dropout"),  # whatever it says, outputs are the same
            ),
            decoder_names(),  # of tensors: see lm/hub/tables/tensor_names.py
            tokenizer="GPT2Tokenizer",  # what transformers takes if the folder names no class
        )
    }

`lm.hub.config` reads a config.json by such a format (`read_config`) and writes one (`write_config`). Every field that
the model type has stands in the list, as a knob, as `Fixed` or as `Unused`. Fields and names that many model types
share are in `decoders.py`, `encoders.py` and `encoder_decoders.py` beside this file; a model type says only in what it
differs from them.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from lm.core.errors import UserError, nearest
from lm.hub.tables.tensor_names import TensorNames
from lm.model.heads import Head

Config = Mapping[str, Any]
Knobs = dict[str, Any]
REQUIRED = object()
ANY_TOKENIZER = "TokenizersBackend"  # of no class of its own


class Field(Protocol):
    """Some keys of config.json, and the knobs that they tell.

    keys: those of config.json, all that `read` looks at
    read: config.json -> knobs. Raises `UserError` that names the key, for a value that is not supported
    write: all knobs of a model -> what to put into its config.json"""

    @property
    def keys(self) -> tuple[str, ...]: ...

    def read(self, config: Config) -> Knobs: ...

    def write(self, knobs: Knobs) -> dict[str, Any]: ...


class HFClass(NamedTuple):
    """One of a model type's classes.

    knobs: those that it implies
    head: its head, given the config; None: the family's own
    names: what the tensors of that head are called
    prefix: of the base model's tensors, if not the format's
    bare: the head of a file that lacks all by which `head` pools"""

    knobs: Config = MappingProxyType({})
    head: Callable[[Config], Head] | None = None
    names: TensorNames = ()
    prefix: str | None = None
    bare: Head | None = None


class HFFormat(NamedTuple):
    """What a `model_type` calls a family's knobs and tensors.

    family: in lm.zoo
    classes: by their names in `architectures`; the first that fits is written
    fields: of config.json
    names: of tensors; they may depend on the config
    prefix: of a base model's tensors within a model with a head; files may lack it
    one_table: a file with one token table is tied, even if tie_word_embeddings is false (T5's mean something else)
    within: model types of more than text whose text_config tells a model of this one, which reads text as they do ->
        the fields that are left out there, with their values
    tokenizer: the class that `transformers` takes where the folder names none; None: it has none for this model type.
        ANY_TOKENIZER: a SentencePiece model is read by its own settings, even where the folder names a class
    tokenizer_always: that class is taken whatever the folder names
    tokenizer_before: the class of `transformers` 4, for a folder that names none and has no SentencePiece model"""

    family: str
    classes: Mapping[str, HFClass]
    fields: tuple[Field, ...]
    names: TensorNames | Callable[[Config], TensorNames]
    prefix: str = "model."
    one_table: bool = False
    within: Mapping[str, Config] = MappingProxyType({})
    tokenizer: str | None = None
    tokenizer_always: bool = False
    tokenizer_before: str | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of fields


@dataclasses.dataclass(frozen=True)
class Knob:
    """One key for one knob. Without a default the key must be there; `from_hf` and `to_hf` translate its values. Of
    several keys the first is written and any is read."""

    knob: str
    hf_key: str | tuple[str, ...]
    default: Any = REQUIRED
    from_hf: Callable[[Any], Any] = lambda value: value
    to_hf: Callable[[Any], Any] = lambda value: value

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.hf_key,) if isinstance(self.hf_key, str) else self.hf_key

    def read(self, config: Config) -> Knobs:
        given = [k for k in self.keys if config.get(k) is not None] or [k for k in self.keys if k in config]
        key, *others = given or self.keys
        value = config.get(key, self.default)
        for other in others:
            if config.get(other, value) != value:  # as transformers knows both names of one field
                both = f"{key}={value!r} and {other}={config[other]!r}"
                raise UserError(f"{both} are the same thing: give one of them, or both alike")
        if value is REQUIRED:
            raise UserError(f"{key!r} is missing: give a config.json with all sizes")
        try:
            return {self.knob: self.from_hf(value)}
        except UserError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise UserError(f"{key}={value!r} is not understood ({type(e).__name__}: {e})") from e

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {self.keys[0]: self.to_hf(knobs[self.knob])}


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A key of which only some values are supported. The first is what it means if absent or null, and what is
    written."""

    hf_key: str
    values: tuple[Any, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.hf_key,)

    def read(self, config: Config) -> Knobs:
        value = config.get(self.hf_key)
        value = self.values[0] if value is None else value
        if not any(value == v and type(value) is type(v) for v in self.values):
            known = " or ".join(map(repr, self.values))
            raise UserError(f"{self.hf_key}={value!r} is not supported, only {known}")
        return {}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {self.hf_key: self.values[0]}


@dataclasses.dataclass(frozen=True, init=False)
class Unused:
    """Keys that do not touch the outputs: dropout and initialisation (training has its own knobs), output options."""

    keys: tuple[str, ...]

    def __init__(self, *keys: str) -> None:
        object.__setattr__(self, "keys", keys)

    def read(self, config: Config) -> Knobs:
        return {}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        return {}


class Custom(NamedTuple):
    """Several keys at once, by functions of its own."""

    keys: tuple[str, ...]
    read: Callable[[Config], Knobs]
    write: Callable[[Knobs], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Nested:
    """A config of its own in the field `key`, that of one tower.

    kinds: which `model_type` it may have, and their fields, which tell the knobs that stand behind `prefix` here
    whole: but for these
    kind: of several kinds, what is written; without it the first. A knob that holds None is that of the other tower,
        without prefix"""

    key: str
    kinds: Mapping[str, tuple[Field, ...]]
    prefix: str = ""
    whole: tuple[str, ...] = ()
    kind: Callable[[Knobs], str] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, *(f"{self.key}.{key}" for fields in self.kinds.values() for f in fields for key in f.keys))

    @property
    def knobs(self) -> dict[str, str]:
        """Its knobs, and the fields that tell them."""
        knobs = [f for fields in self.kinds.values() for f in fields if isinstance(f, Knob)]
        return {self._ours(f.knob): f"{self.key}.{f.keys[0]}" for f in knobs}

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
            with naming(field.keys, inner, self.key):
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


@contextlib.contextmanager
def naming(keys: tuple[str, ...], config: Config, within: str = "") -> Iterator[None]:
    """What goes wrong where these fields are read, in one line that names them; `within`: the field that holds them."""
    where = f"{within}: " if within else ""
    try:
        yield
    except UserError as e:
        if not within:
            raise
        raise UserError(f"{where}{e}") from e
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        given = ", ".join(f"{key}={config[key]!r}" for key in keys if key in config)
        raise UserError(f"{where}{given or keys[0]} is not understood ({type(e).__name__}: {e})") from e


def flag(knob: str, hf_key: str, default: bool) -> Knob:
    """A knob that holds whether something is so, of which null means that it is not, as transformers has it."""
    return Knob(knob, hf_key, default, lambda value: False if value is None else value)


# Activations there and here; `gelu_new` and `gelu_pytorch_tanh` are the same.
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


def activation(hf_key: str, default: str, known: Mapping[str, str] = ACTIVATIONS, *, knob: str = "activation") -> Knob:
    """A knob that holds the name of an activation; `known`: theirs -> ours."""

    def from_hf(name: str) -> str:
        if name not in known:
            raise UserError(f"{hf_key}={name!r} is an unknown activation{nearest(str(name), known)}")
        return known[name]

    return Knob(knob, hf_key, default, from_hf, lambda ours: next(k for k, v in known.items() if v == ours))


def size_fields(d_model: str, layers: str, heads: str, d_ff: str | None = None) -> tuple[Knob, ...]:
    """The sizes that all families have; the modern names stand for any of them."""
    sizes = (
        Knob("d_model", (d_model, "hidden_size")),
        Knob("layers", (layers, "num_hidden_layers")),
        Knob("heads", (heads, "num_attention_heads")),
    )
    return (*sizes, Knob("d_ff", d_ff)) if d_ff else sizes


def overridden(shared: tuple[Field, ...], own: tuple[Field, ...], without: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """Shared fields, with a model type's own in place of those that have a key or a knob in common with them, and
    without those of the keys `without`."""
    keys = {key for field in own for key in field.keys} | set(without)
    knobs = {field.knob for field in own if isinstance(field, Knob)}
    kept = (f for f in shared if keys.isdisjoint(f.keys) and not (isinstance(f, Knob) and f.knob in knobs))
    return (*kept, *own)


# Fields of heads for multiple choice, which are not read.
SUMMARY = tuple(f"summary_{x}" for x in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"))


# ---------------------------------------------------------------------------------------------------------------------
# Values


def number(
    key: str, value: Any, *, above: float | None = None, most: float | None = None, whole: bool = False
) -> float:
    """The value of a field that is a number. Raises `UserError`, which names the field, for what is none or is out of
    bounds."""
    what = "whole number" if whole else "number"
    what += f" above {above:g}" if above is not None else ""
    what += f" up to {most:g}" if most is not None else ""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{key}={value!r} is not understood: give a {what}")
    if (above is not None and value <= above) or (most is not None and value > most) or (whole and value != int(value)):
        raise UserError(f"{key}={value!r} is not supported: give a {what}")
    return float(value)


def count(key: str) -> Callable[[Any], int]:
    """Reads a field that is a whole number from 1 on."""
    return lambda value: int(number(key, value, above=0, whole=True))


def label_count(config: Config) -> int:
    """How many labels a classifier tells apart."""
    return len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
