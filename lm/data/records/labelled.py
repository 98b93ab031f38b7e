"""Labelled texts: one text, or two, with a class or a value; words with tags; questions with the answer's place."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError, nearest
from lm.data.channels import token_ranges
from lm.data.records.pairs import FIELD, written
from lm.data.records.records import Encoded, Records, SourceRecord, joined, special
from lm.text.format import TextFormat

MOST_NAMES = 200  # of classes that an error lists


@component
class Labelled(Records):
    """One text, or two, and a label of the whole: between what the model's text format puts around a text, [CLS] first
    [SEP] second [SEP] for BERT; where that puts nothing behind it, the end-of-text does. Texts are templates, as those
    of `Pairs`.

    Channels: `label`, the same on all tokens, and `part`, 1 on the second text and what ends it.

    text, second: what is read; without `second`, one text
    label: the field of the label: the name of a class, its number from 0, or with `values` a real number
    labels: names of the classes, in order; (): labels are numbers
    values: labels are real numbers, as for `Regression`
    between: further ids between the texts, as ours of RoBERTa, which puts two </s> there: (2,)"""

    text: str = "{text}"  # a template of fields
    second: str = ""  # of the second text; "": there is one text
    label: str = "label"  # field
    labels: tuple[str, ...] = ()  # names of the classes, in order; (): labels are numbers
    values: bool = False  # labels are real numbers
    between: tuple[int, ...] = ()  # further ids between the texts

    def __post_init__(self) -> None:
        if not FIELD.search(self.text) or (self.second and not FIELD.search(self.second)):
            name = "text" if not FIELD.search(self.text) else "second"
            raise UserError(f"records.{name}={getattr(self, name)!r} names no field: write it in braces, as '{{text}}'")
        if self.values and self.labels:
            raise UserError("records.labels names classes, and records.values says that labels are numbers: leave one")
        _check_names(self.labels)

    def fields(self, text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*FIELD.findall(self.text), *FIELD.findall(self.second), self.label)))

    @property
    def channels(self) -> tuple[str, ...]:
        return ("label", "part")

    def check(self, source: Iterable[SourceRecord]) -> None:
        if not self.labels and not self.values:
            _check_numbers(self.label, ((item.where, item.values[self.label]) for item in source))

    def items(self, document: SourceRecord, text: TextFormat) -> Iterator[SourceRecord]:
        """A record of which a text is empty is none, which is counted."""
        if all(written(side, document).strip() for side in (self.text, self.second) if side):
            yield document

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        given = item.values[self.label]
        label = _value(given, self.label, item) if self.values else _class(given, self.label, self.labels, item)
        first = Encoded(*text.tokenizer.encode_sized(written(self.text, item)))
        second = Encoded(*text.tokenizer.encode_sized(written(self.second, item))) if self.second else None
        made = _around(text, first, second, self.between)
        kind = np.float32 if self.values else np.int32
        return made._replace(channels={**made.channels, "label": np.full(len(made.ids), label, kind)})


@component
class Tagged(Records):
    """Words, each with a tag (named entities, parts of speech). The first token of a word has its tag; further ones,
    and what stands around the text, are not predicted. Channels: `label`, and `target`, 1 where there is one.

    words, tags: fields with lists of equal length, or texts that spaces separate
    labels: names of the tags, in order; (): they are numbers from 0"""

    words: str = "words"  # field
    tags: str = "tags"  # field
    labels: tuple[str, ...] = ()  # names of the tags, in order; (): they are numbers

    def __post_init__(self) -> None:
        _check_names(self.labels)

    def fields(self, text: str) -> tuple[str, ...]:
        return (self.words, self.tags)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("label", "target")

    def check(self, source: Iterable[SourceRecord]) -> None:
        if not self.labels:
            tagged = (item for item in source if item.values[self.tags])
            _check_numbers(self.tags, ((item.where, tag) for item in tagged for tag in _listed(item, self.tags)))

    def items(self, document: SourceRecord, text: TextFormat) -> Iterator[SourceRecord]:
        if document.values[self.words]:
            yield document

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        words, tags = _listed(item, self.words), _listed(item, self.tags)
        if len(words) != len(tags):
            raise UserError(
                f"{item.where}: {len(words)} {self.words} and {len(tags)} {self.tags}: give as many of both"
            )
        if wrong := [word for word in words if not isinstance(word, str) or not word]:
            raise UserError(f"{item.where}: {self.words} holds {wrong[0]!r}, which is no word: leave it out")
        ends = np.cumsum([len(word) + 1 for word in words])
        spans = [(int(end) - 1 - len(word), int(end) - 1) for word, end in zip(words, ends, strict=True)]
        plain = " ".join(words)
        made = Encoded(*text.tokenizer.encode_sized(plain))
        label, target = (np.zeros(len(made.ids), np.int32) for _ in range(2))
        first = token_ranges(plain, made.covered, spans, item.where)[:, 0]
        label[first] = [_class(tag, self.tags, self.labels, item) for tag in tags]
        target[first] = 1
        made = _around(text, made._replace(channels={"label": label, "target": target}))
        return made._replace(channels={name: made.channels[name] for name in self.channels})


@component
class Answers(Records):
    """A question, and a text in which its answer stands (SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250): [CLS]
    question [SEP] context [SEP]. A question without an answer has it at the first token (SQuAD 2.0).

    Channels: `part`, 1 on the context; `label`, 1 on the answer's first token, 2 on its last, 3 where these are one.

    start, answer: fields of where the answer begins, in characters of the context, and of its text; lists as SQuAD has
        them count by their first entry"""

    question: str = "question"  # field
    context: str = "context"  # field
    start: str = "answer_start"  # field: characters of the context before the answer
    answer: str = "answer"  # field
    between: tuple[int, ...] = ()  # further ids between the texts

    def fields(self, text: str) -> tuple[str, ...]:
        return (self.question, self.context, f"{self.start}?", f"{self.answer}?")

    @property
    def channels(self) -> tuple[str, ...]:
        return ("label", "part")

    def items(self, document: SourceRecord, text: TextFormat) -> Iterator[SourceRecord]:
        if document.values[self.question] and document.values[self.context]:
            yield document

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        context = item.values[self.context]
        asked, read = (Encoded(*text.tokenizer.encode_sized(side)) for side in (item.values[self.question], context))
        marks = np.zeros(len(read.ids), np.int32)
        start, answer = (_first(item.values[name]) for name in (self.start, self.answer))
        if answer:
            if not isinstance(start, int) or context[start : start + len(answer)] != answer:
                raise UserError(
                    f"{item.where}: the context has not the answer {answer[:40]!r} at {start!r}: give where it begins, "
                    "in characters from 0"
                )
            found = token_ranges(context, read.covered, [(start, start + len(answer))], item.where)[0]
            marks[found[0]] += 1
            marks[found[1] - 1] += 2
        made = _around(text, asked, read._replace(channels={"label": marks}), between=self.between)
        if not answer:
            made.channels["label"][0] = 3
        return made


def _around(text: TextFormat, first: Encoded, second: Encoded | None = None, between: Sequence[int] = ()) -> Encoded:
    """One text or two as the model reads them, with the channel `part`."""
    end = special(*(text.after or (text.tokenizer.eos_id,)))
    first = joined(special(*text.before), first)
    if second is None:
        parts = [joined(first, end)]
    else:
        parts = [joined(first, special(*text.after), special(*between)), joined(second, end)]
    part = np.repeat(np.arange(len(parts), dtype=np.int32), [len(one.ids) for one in parts])
    made = joined(*parts)
    return made._replace(channels={**made.channels, "part": part})


def _check_names(labels: Sequence[str]) -> None:
    if len(set(labels)) < len(labels):
        raise UserError(f"records.labels={labels} names a class twice: name each once, in the order of the head's rows")


def _check_numbers(field: str, given: Iterable[tuple[str, Any]]) -> None:
    """Raise `UserError` for labels (where, label) that are names, with all there are, ready to be set: which number a
    class has must not depend on the records that happen to be there. Whether they are is seen by the first."""
    labels = iter(given)
    where, first = next(labels, ("", 0))
    if first is None or _number(first) >= 0:
        return
    names = sorted({str(first), *(str(label) for _, label in labels if label is not None)})
    remedy = f"set config.data.records.labels={tuple(names)!r}, the classes that are there"
    if all(math.isfinite(_float(name)) for name in names):
        remedy = "set config.data.records.values=true for real numbers, or labels to the names of the classes"
    elif len(names) > MOST_NAMES:
        remedy = f"there are {len(names):,} others: set config.data.records.labels to the names of the classes"
    raise UserError(f"{where}: {field}={first!r} is no number of a class, from 0: {remedy}")


def _number(given: Any) -> int:
    """The number of a class that is given as one; -1: it is none."""
    try:
        return -1 if isinstance(given, bool) else int(str(given))
    except ValueError:
        return -1


def _float(given: Any) -> float:
    """A real number that is given as one; nan: it is none."""
    try:
        return math.nan if given is None or isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return math.nan


def _class(given: Any, field: str, labels: Sequence[str], item: SourceRecord) -> int:
    """The number of a class. Raises `UserError` for what is none."""
    if labels:
        if str(given) in labels:
            return labels.index(str(given))
        raise UserError(
            f"{item.where}: {field}={given!r} is no class of config.data.records.labels{nearest(str(given), labels)}: "
            "mend the record, or add the class there"
        )
    if (number := _number(given)) < 0:
        raise UserError(
            f"{item.where}: {field}={given!r} is no number of a class, from 0: set config.data.records.labels to the "
            "names of the classes"
        )
    return number


def _value(given: Any, field: str, item: SourceRecord) -> float:
    if not math.isfinite(value := _float(given)):
        raise UserError(f"{item.where}: {field}={given!r} is no finite number: mend the record, or leave it out")
    return value


def _listed(item: SourceRecord, field: str) -> list[Any]:
    value = item.values[field]
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list):
        return value
    raise UserError(f"{item.where}: field {field!r} is no list, nor a text: name another in config.data.records")


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value
