"""Transforms of documents: what is done to a source's texts before they become tokens, in order
(`config.data.transforms`).

A transform is a component: it changes a text, or drops it and says why. What was dropped is counted by reason, with
examples, in a report that stands in the folder of the token cache (`dropped.json`) and is shown. Transforms are part of
the cache's name, if there are any.

    source = TransformedSource(open_source("pages.jsonl"), (QualityRules(), ExactDuplicates()))
    for document in source: ...
    print(source.report)
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.data.compressed import Meter
from lm.data.records.records import SourceRecord
from lm.data.sources import Document, Source

EXAMPLES, SHOWN = 3, 100  # dropped documents of each reason to show, and characters of each


class TextDocument(NamedTuple):
    """What a transform reads: a document's text as the transforms before it left it, and other fields of its record."""

    name: str
    text: str
    values: Mapping[str, Any] = {}


class Dropped(NamedTuple):
    """What a transform returns in place of a text: a reason as a count reads it ("12 documents of fewer than 50
    words"), and what is so of this document ("31 words")."""

    reason: str
    detail: str = ""


Apply = Callable[[TextDocument], str | Dropped]


class DocumentTransform:
    """Base of the components. They are deterministic: the same documents in the same order give the same texts."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of each record to read besides the text."""
        return ()

    def begin(self) -> Apply:
        """What is applied to the documents of a split one after another: `self`, unless it remembers some."""
        return self

    def __call__(self, document: TextDocument) -> str | Dropped:
        raise NotImplementedError


@dataclass
class DroppedReport:
    """What became of a source's documents."""

    kept: int = 0
    changed: int = 0  # of these
    read_bytes: int = 0
    kept_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # dropped documents by reason
    bytes: Counter[str] = field(default_factory=Counter)  # and their bytes
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def clear(self) -> None:
        self.kept = self.changed = self.read_bytes = self.kept_bytes = 0
        for counted in (self.counts, self.bytes, self.examples):
            counted.clear()

    def add(self, document: TextDocument, made: str | Dropped) -> None:
        size = len(document.text.encode())
        self.read_bytes += size
        if not isinstance(made, Dropped):
            self.kept += 1
            self.changed += made != document.text
            self.kept_bytes += len(made.encode())
            return
        self.counts[made.reason] += 1
        self.bytes[made.reason] += size
        shown = self.examples.setdefault(made.reason, [])
        if len(shown) < EXAMPLES:
            text = " ".join(document.text[: 4 * SHOWN].split())[:SHOWN]
            shown.append({"name": document.name, "why": made.detail, "text": text})

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        dropped = {
            reason: {"documents": n, "bytes": self.bytes[reason], "examples": self.examples[reason]}
            for reason, n in self.counts.most_common()
        }
        totals = {name: getattr(self, name) for name in ("kept", "changed", "read_bytes", "kept_bytes")}
        return {**totals, "dropped": dropped}

    def __str__(self) -> str:
        """A table: a line for each reason, with an example."""
        total = self.kept + self.counts.total()
        lines = [
            f"{self.kept:,} of {total:,} documents kept ({self.kept_bytes:,} of {self.read_bytes:,} bytes), "
            f"{self.changed:,} of them changed"
        ]
        for reason, n in self.counts.most_common():
            lines.append(f"{n:>9,}  {n / max(1, total):>6.1%}  {reason}")
            one = self.examples[reason][0]
            why = f" ({one['why']})" if one["why"] else ""
            lines.append(f"{'':19}{one['name']}{why}: {one['text'][:60]}")
        return "\n".join(lines)


@dataclass(frozen=True)
class TransformedSource:
    """The documents of a source after `transforms`; `report` is of the latest iteration."""

    source: Source
    transforms: tuple[DocumentTransform, ...]
    report: DroppedReport = field(default_factory=DroppedReport, compare=False)

    @property
    def fingerprint(self) -> str:
        identity = (self.source.fingerprint, [to_dict(transform) for transform in self.transforms])
        return hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()

    @property
    def done(self) -> float:
        return self.source.done

    @property
    def meter(self) -> Meter:
        return self.source.meter

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    def __iter__(self) -> Iterator[Document]:
        return (Document(document.name, document.text) for document in self.documents())

    def documents(self) -> Iterator[TextDocument]:
        """Those that are left, with the fields of their records; of a document without text that."""
        self.report.clear()
        stages = [transform.begin() for transform in self.transforms]
        for document in self.source:
            given = self._read(document)
            if not given.text.strip():
                yield given._replace(text="")  # which the cache counts
                continue
            made = applied(given, stages)
            self.report.add(given, made)
            if not isinstance(made, Dropped):
                yield given._replace(text=made)

    def _read(self, document: Any) -> TextDocument:
        if not isinstance(document, SourceRecord):
            return TextDocument(document.name, document.text)
        text = document.values[self.source.fields[0]]
        if text is not None and not isinstance(text, str):
            raise UserError(f"{document.where}: its text is a {type(text).__name__}; set config.data.field")
        return TextDocument(document.name, text or "", document.values)


def applied(document: TextDocument, stages: list[Apply]) -> str | Dropped:
    """What these make of a document, one after another; a text of which nothing is left is dropped."""
    for stage in stages:
        made = stage(document)
        if isinstance(made, Dropped):
            return made
        if not made.strip():
            return Dropped(f"documents of which {type(stage).__name__} left nothing")
        document = document._replace(text=made)
    return document.text


def fields_of(transforms: tuple[DocumentTransform, ...], text: str) -> tuple[str, ...]:
    """The fields of each record that a source must give these, that of the text first; () where that is enough."""
    more = dict.fromkeys(name for transform in transforms for name in transform.fields)
    return (text, *(name for name in more if name != text)) if more else ()
