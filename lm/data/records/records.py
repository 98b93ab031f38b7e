"""The protocol of records: what a record of a source is, and how it becomes tokens and channels.

A component (`config.data.records`, chosen by its `type`). One process reads the source and cuts what it reads into
items; worker processes encode these, and the token cache keeps the result. All of it is part of the cache's name, so
that another choice makes another cache.
"""

import abc
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from lm.core.component import to_dict
from lm.text.format import TextFormat

NO_CHANNELS: Mapping[str, np.ndarray] = {}


class Encoded(NamedTuple):
    """The tokens of an item: int32[tokens], the bytes of text that each covers, and its channels, of that length too.
    Without tokens it is left out, and counted under `left_out`, which says why."""

    ids: np.ndarray
    covered: np.ndarray
    channels: Mapping[str, np.ndarray] = NO_CHANNELS
    left_out: str = ""


@dataclass(frozen=True)
class SourceRecord:
    """Some fields of a record of JSON, of a row of a table or of Parquet."""

    name: str  # of the file within the corpus, and the record's number
    where: str  # file and line, as errors say
    values: Mapping[str, Any]  # by field; None where it has none
    begins: ClassVar[bool] = True  # whole documents

    def pieces(self) -> Iterator[str]:
        """Its texts, for a tokenizer to learn from."""
        return texts_in(list(self.values.values()))

    @property
    def size(self) -> int:
        """Bytes of its texts."""
        return sum(len(text.encode()) for text in self.pieces())


def texts_in(value: Any) -> Iterator[str]:
    """All texts within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(item)


class Item(Protocol):
    """What a worker encodes at once: a record, or a part of a document."""

    @property
    def begins(self) -> bool: ...  # a document begins with it
    @property
    def size(self) -> int: ...  # bytes of text


class Readable(Protocol):
    """What a source yields: `lm.data.sources.Document`, or a `SourceRecord`."""

    @property
    def name(self) -> str: ...
    def pieces(self) -> Iterator[str]: ...


class Records(abc.ABC):
    """Base of the components."""

    whole: ClassVar[bool] = True  # a record is never cut into several rows: half of one means nothing

    @abc.abstractmethod
    def fields(self, text: str) -> tuple[str, ...]:
        """The fields of each record to read, where `text` is config.data.field; (): the source is plain documents."""

    def knobs(self, text: str) -> dict[str, str]:
        """The knob that names each of `fields`, for errors: the first that is the field, or a template with it."""
        fields = [field.rstrip("?") for field in self.fields(text)]
        own = [(knob.name, getattr(self, knob.name)) for knob in reversed(dataclasses.fields(self))]  # type: ignore[arg-type]
        return {
            field: f"config.data.records.{name}"
            for name, value in own
            for field in fields
            if isinstance(value, str) and (value == field or f"{{{field}}}" in value)
        }

    def check(self, source: Iterable[Any]) -> None:  # noqa: B027 - most have nothing to check
        """Raise `UserError` for documents or records that these cannot be; before any is made tokens of."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that every item has."""
        return ()

    def items(self, document: Any, text: TextFormat) -> Iterator[Any]:
        """What a document or record is encoded as, in order; nothing if it has no text, which is counted."""
        yield document

    @abc.abstractmethod
    def encode(self, item: Any, text: TextFormat) -> Encoded:
        """Tokens and channels of an item. Runs in a worker process. `text`: how the run's model expects text.

        Raises `UserError`, naming the record, for one that is wrong."""

    def fingerprint(self, text: TextFormat) -> str:
        """All that the tokens depend on besides source and tokenizer."""
        return repr((to_dict(self), text.before, text.after, text.start))


def joined(*parts: Encoded) -> Encoded:
    """One after another; a channel that a part lacks is 0 there."""
    names = {name for part in parts for name in part.channels}
    zeros = [np.zeros(len(part.ids), np.int32) for part in parts]
    return Encoded(
        np.concatenate([part.ids for part in parts]).astype(np.int32),
        np.concatenate([part.covered for part in parts]).astype(np.int32),
        {n: np.concatenate([p.channels.get(n, z) for p, z in zip(parts, zeros, strict=True)]) for n in sorted(names)},
    )


def special(*ids: int) -> Encoded:
    """Tokens that stand for no text."""
    return Encoded(np.array(ids, np.int32), np.zeros(len(ids), np.int32))
