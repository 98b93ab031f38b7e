"""Pairs: a text to read and a text to write."""

import re
from typing import Any

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.data.records.records import Encoded, Records, SourceRecord, joined, special
from lm.text.format import TextFormat

FIELD = re.compile(r"\{([^{}]+)\}")


@component
class Pairs(Records):
    """Inputs, which are only read, and targets, which are predicted; both are templates that name fields of a record in
    braces: T5's tasks are `inputs="translate English to German: {en}", targets="{de}"`, a prompt of a decoder's is
    `inputs="Q: {question}\\nA: "`. Of a table without a header a field is a number, as "{1}".

    For an encoder-decoder, a pair becomes the inputs as its encoder reads them (between what the model's text format
    puts around a text), and the targets behind its decoder's first token; for a decoder, one text. Both end with the
    end-of-text. Channels: `part` is 0 on the inputs and 1 on the targets, `target` 1 on what is predicted of these."""

    inputs: str = "{inputs}"  # what is read: a text that names fields of the record in braces
    targets: str = "{targets}"  # what is written, likewise

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            if not FIELD.search(getattr(self, name)):
                raise UserError(
                    f"records.{name}={getattr(self, name)!r} names no field: write it in braces, as '{{en}}'"
                )

    def fields(self, text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(FIELD.findall(self.inputs) + FIELD.findall(self.targets)))

    @property
    def channels(self) -> tuple[str, ...]:
        return ("part", "target")

    def items(self, document: SourceRecord, text: TextFormat) -> Any:
        """A pair without a target, or of which all fields of the inputs are empty, is none, which is counted."""
        if all(any(_text(document, name) for name in FIELD.findall(side)) for side in (self.inputs, self.targets)):
            yield document

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        first, second = (self._side(side, item, text) for side in (self.inputs, self.targets))
        encoder = text.start is not None
        first = joined(special(*text.before), first, special(*(text.after if encoder else ())))
        second = joined(second, special(text.tokenizer.eos_id))
        lead = special(*text.lead) if encoder else special()
        parts = [
            _marked(first, part=0, target=0),
            _marked(lead, part=1, target=0),
            _marked(second, part=1, target=1),
        ]
        return joined(*parts)

    def _side(self, template: str, item: SourceRecord, text: TextFormat) -> Encoded:
        return Encoded(*text.tokenizer.encode_sized(written(template, item)))


def written(template: str, record: SourceRecord) -> str:
    """A template with the fields of a record in the places of their names."""
    return FIELD.sub(lambda found: _text(record, found[1]), template)


def _text(record: SourceRecord, name: str) -> str:
    """The text of a field; numbers as they are written."""
    value = record.values[name]
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{record.where}: field {name!r} is not text but {type(value).__name__}; name another in records")


def _marked(text: Encoded, **channels: int) -> Encoded:
    """With channels of one value each."""
    return text._replace(channels={name: np.full(len(text.ids), value, np.int32) for name, value in channels.items()})
