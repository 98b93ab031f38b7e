"""The front door: from names to token caches.

data = open_data("python-stdlib", "bpe-2048")
batches = Batches(data.training, length=512, batch_size=16, seed=0, example=...)
"""

import hashlib
import importlib
import os
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lm.data.transforms
from lm.core.component import from_dict, names_of, registered
from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.files import Where
from lm.data.progress import Progress, tell
from lm.data.records.documents import Documents
from lm.data.records.records import Readable, Records
from lm.data.sources import Source, open_source
from lm.data.tokenize import build_cache
from lm.data.tokenizer import open_tokenizer
from lm.data.transforms.transform import DocumentTransform, TransformedSource, fields_of
from lm.text.format import TextFormat
from lm.text.hf_tokenizer import HFTokenizer
from lm.text.tokenizers import Tokenizer

CACHE = "~/.cache/pure-lm"


class CorpusPart(NamedTuple):
    """One source of a mixture; a plain corpus is a mixture of one."""

    name: str
    weight: float
    train: TokenCache
    validation: TokenCache
    objective: str = ""  # the part of a mixture of objectives that its rows go to; "": by the rates of that


class Data(NamedTuple):
    tokenizer: Tokenizer
    parts: tuple[CorpusPart, ...]
    before: tuple[int, ...] = ()  # the ids with which every document begins

    @property
    def training(self) -> tuple[tuple[TokenCache, float], ...]:
        return tuple((part.train, part.weight) for part in self.parts)

    @property
    def validation(self) -> tuple[TokenCache, ...]:
        return tuple(part.validation for part in self.parts)

    @property
    def tokens(self) -> int:
        """For training."""
        return sum(part.train.size for part in self.parts)

    @property
    def digest(self) -> str:
        """Of the training tokens of every part, in order."""
        digests = [part.train.digest for part in self.parts]
        return digests[0] if len(digests) == 1 else hashlib.blake2b(repr(digests).encode(), digest_size=16).hexdigest()


def open_data(
    source: Where,
    tokenizer: str | os.PathLike | Tokenizer = "byte",
    *,
    mixture: Sequence[tuple] = (),
    validation: Where | None = None,
    pattern: str = "*.txt",
    field: str = "text",
    holdout: float = 0.02,
    cache: str | os.PathLike = CACHE,
    reserved: Sequence[str] = (),
    bos: bool = False,
    records: Records = Documents(),
    text: TextFormat | None = None,
    encoder: bool = False,
    transforms: Sequence[DocumentTransform] = (),
) -> Data:
    """Both splits of a source (see `open_source`) in tokens, which are kept below `cache` for the next time.

    `mixture` = ((source, weight), (source, weight, field or records), ...) is taken instead of `source`. `records` says
    what a record is and how it is written, for a model that expects text as `text` says; None: as one of ours does,
    which is an `encoder` with a decoder, or a decoder alone. A tokenizer given as "bpe-2048" or "unigram-2048" is
    trained on the training splits, with `reserved` special tokens, and kept too.
    Every document ends with the end-of-text, and with `bos` it begins with what the tokenizer puts before a text.
    `transforms` are applied to the documents of both splits first, not to pairs and other records.
    """
    sources = sources_of(source, mixture, field, records)
    if mixture and validation is not None:
        raise UserError("data.validation does not go with data.mixture: each of its sources holds out its own part")
    options: dict[str, Any] = dict(validation=validation, pattern=pattern, holdout=holdout)
    root = Path(cache).expanduser()
    if transforms and not any(transformable(s.records) for s in sources):
        raise UserError("config.data.transforms are of documents: set config.data.records.type=Documents without spans")
    train = [open_split(s, "train", tuple(transforms), **options) for s in sources]
    for note in dict.fromkeys(note for s in train for note in s.notes):
        tell(note)
    corpus = hashlib.blake2b(repr([s.fingerprint for s in train] + list(reserved)).encode(), digest_size=16).hexdigest()
    if isinstance(tokenizer, (str, os.PathLike)):
        path = root / "tokenizers" / f"{corpus}-{Path(tokenizer).name}.model"
        with Progress("reading text to learn a tokenizer from", partial(_read, train)):
            tokens = open_tokenizer(tokenizer, _documents(train), path, reserved=reserved)
    else:
        tokens = tokenizer.with_special(reserved)
    before = begin_of(tokens) if bos else ()
    caches = root / "tokens"
    held_out = [open_split(s, "validation", tuple(transforms), **options) for s in sources]
    if text is not None and text.tokenizer.with_special(reserved).fingerprint != tokens.fingerprint:
        text = None
    text = format_for(tokens, text, encoder)

    def cached(own: Weighted, split: Source | TransformedSource) -> TokenCache:
        return build_cache(split, tokens, caches, before=before, records=own.records, text=text)

    parts = [
        CorpusPart(str(s.where), s.weight, cached(s, of_training), cached(s, of_validation), s.objective)
        for s, of_training, of_validation in zip(sources, train, held_out, strict=True)
    ]
    for part in parts:
        for reason, count in sorted((Counter(part.train.left_out) + Counter(part.validation.left_out)).items()):
            tell(f"{part.name}: {count:,} {reason}")
    return Data(tokens, tuple(parts), before)


def format_for(tokenizer: Tokenizer, text: TextFormat | None, encoder: bool) -> TextFormat:
    """How records are written for a model that expects text as `text` says (None: one of ours), with this tokenizer;
    `encoder`: it has one beside its decoder, whose first token there must be then."""
    own = TextFormat.of(tokenizer, None, reads=encoder)
    if text is None:
        return own
    start = (own.start if text.start is None else text.start) if encoder else None
    return text._replace(tokenizer=tokenizer, start=start)


def open_split(
    s: "Weighted", split: str, transforms: tuple[DocumentTransform, ...], **options: Any
) -> Source | TransformedSource:
    """A split of one of a run's sources, transformed where it holds plain documents; options as of `open_source`."""
    if not transforms or not transformable(s.records):
        return open_source(s.where, split, field=s.field, fields=s.fields, knobs=s.records.knobs(s.field), **options)
    source = open_source(s.where, split, field=s.field, fields=fields_of(transforms, s.field), **options)
    return TransformedSource(source, transforms)


def transforms_of(described: Sequence) -> tuple[DocumentTransform, ...]:
    """The transforms that config.data.transforms describes. Raises `UserError` for what is none."""
    for module in pkgutil.iter_modules(lm.data.transforms.__path__, f"{lm.data.transforms.__name__}."):
        importlib.import_module(module.name)
    made = from_dict(described, "config.data.transforms")
    for i, transform in enumerate(made):
        if not isinstance(transform, DocumentTransform):
            what, known = type(transform).__name__, ", ".join(names_of(DocumentTransform))
            raise UserError(f"config.data.transforms[{i}] is a {what}, no transform of documents; there are {known}")
    return made


def transformable(records: Records) -> bool:
    """Whether these are plain documents, whose text may be changed; given spans would not be where they were."""
    return isinstance(records, Documents) and not records.spans


def _documents(sources: Sequence[Source | TransformedSource]) -> Iterator[Readable]:
    for source in sources:
        yield from source


def _read(sources: Sequence[Source | TransformedSource]) -> tuple[float, float]:
    """(share, bytes) of these files that have been read."""
    read = sum(source.meter.read for source in sources)
    return read / sum(source.size for source in sources), read


def begin_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What stands before a text that a model reads: what a tokenizer.json puts there, else the begin-of-text. Raises
    `UserError` for a tokenizer without one."""
    before = tokenizer.around[0] if isinstance(tokenizer, HFTokenizer) else ()
    if before:
        return before
    if tokenizer.bos_id is None:
        raise UserError("data.bos=on, but this tokenizer has no begin-of-text: set data.bos=off")
    return (tokenizer.bos_id,)


class Weighted(NamedTuple):
    """A source of a run."""

    where: Where
    weight: float
    field: str  # of its JSON records, column of its tables
    records: Records = Documents()
    objective: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """All that are read of a record, where it is not plain text."""
        return self.records.fields(self.field)


def sources_of(source: Where, mixture: Sequence[tuple], field: str, records: Records = Documents()) -> list[Weighted]:
    """The sources of a run, whether it has a mixture or not. Raises `UserError` for a malformed one."""
    if not source and not mixture:
        raise UserError("data.source is empty: name a file or folder of text, or python-stdlib")
    try:
        weighted = [_weighted(*entry, field=field, records=records) for entry in mixture]
    except UserError:
        raise
    except (TypeError, ValueError) as e:
        raise UserError(
            f"data.mixture={mixture!r} is no list of (source, weight), (source, weight, field) or (source, weight, "
            "records): write (('a.txt', 0.7), ('b.jsonl', 0.3, 'text'), ('c.jsonl', 1, {'type': 'Pairs'}))"
        ) from e
    if len({str(s.where) for s in weighted}) < len(weighted):
        raise UserError(f"data.mixture={mixture!r} names a source twice: give it one weight")
    return weighted or [Weighted(source, 1.0, field, records)]


def _weighted(
    where: Where, weight: Any, own: Any = None, objective: str = "", *, field: str, records: Records
) -> Weighted:
    """An entry of a mixture, with a field or records and an objective of its own."""
    if not isinstance(objective, str):
        raise TypeError("the name of an objective is a text")
    if isinstance(own, Mapping):
        if not issubclass(registered(own.get("type")) or object, Records):
            kinds = ", ".join(names_of(Records))
            raise UserError(f"config.data.mixture: records of type {own.get('type')!r} are none of {kinds}")
        return Weighted(where, float(weight), field, from_dict(own, "config.data.mixture"), objective)
    return Weighted(where, float(weight), str(own) if own else field, records, objective)
