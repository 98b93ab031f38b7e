"""Documents: plain text, of which sentences and spans may be marked."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from lm.core.component import component, to_dict
from lm.core.errors import UserError
from lm.data.channels import token_ranges
from lm.data.cuts import TextPart, encode_part, parts_of
from lm.data.records.records import Encoded, Records, SourceRecord, joined, special
from lm.text.covered import Sized
from lm.text.format import TextFormat

# A sentence begins at the first character that is no white space, in a line, or behind what ends another.
STARTS = {
    "lines": re.compile(r"(?:^|\n)[^\S\n]*(?=[^\s])"),
    # behind . ! ? and the like, with what closes them, and white space; where CJK marks end one, behind these alone
    "punctuation": re.compile(
        r"""(?:^|\n\s*\n|[.!?\u2026\u061f\u0964]["'\u201d\u2019)\]]*\s|[\u3002\uff01\uff1f])\s*(?=\S)"""
    ),
}


@component
class Documents(Records):
    """Each document is a text of its own, between the model's begin-of-text, if it has one, and the end-of-text."""

    sentences: Literal["", "lines", "punctuation"] = ""  # how sentences are told apart, to mark where each begins
    spans: str = ""  # field that lists phrases of the text: [[start, end], ...], offsets of characters

    markers: tuple[str, ...] = ()  # special tokens: what is spelled so in the text, as by a transform, is that token

    whole = False

    def fields(self, text: str) -> tuple[str, ...]:
        return (text, self.spans) if self.spans else ()

    @property
    def channels(self) -> tuple[str, ...]:
        return ("sentence",) * bool(self.sentences) + ("span",) * bool(self.spans)

    def items(self, document: Any, text: TextFormat) -> Iterator[Any]:
        if not isinstance(document, SourceRecord):
            parts = parts_of(document.name, document.pieces(), text.tokenizer)
            yield from (part for part in parts if part.text or not part.begins)
        elif self._text(document):
            yield document

    def encode(self, item: TextPart | SourceRecord, text: TextFormat) -> Encoded:
        if isinstance(item, TextPart):
            return self._part(item, text)
        written, spans = self._text(item), item.values[self.spans] or []
        parts = [self._part(part, text) for part in parts_of(item.name, iter([written]), text.tokenizer)]
        whole = joined(*parts)
        marks = np.zeros(len(whole.ids), np.int32)
        if not isinstance(spans, list) or not all(_is_span(span) for span in spans):
            raise UserError(f"{item.where}: field {self.spans!r} must list spans as [[start, end], ...]")
        head = len(text.before)
        ranges = token_ranges(written, whole.covered[head:], spans, f"{item.where}, field {self.spans!r}")
        for number, (first, behind) in enumerate(ranges.tolist(), 1):
            marks[head + first : head + behind] = number
        return whole._replace(channels={**whole.channels, "span": marks})

    def fingerprint(self, text: TextFormat) -> str:
        """Nothing for plain documents, whose caches are older than records."""
        return "" if self == Documents() else repr(to_dict(self))

    def _text(self, record: SourceRecord) -> str:
        """Its text: the field that is not that of the spans."""
        (written,) = (value for name, value in record.values.items() if name != self.spans)
        if written is not None and not isinstance(written, str):
            raise UserError(f"{record.where}: its text is a {type(written).__name__}; set config.data.field")
        return written or ""

    def _part(self, part: TextPart, text: TextFormat) -> Encoded:
        ids, covered = self._marked(part, text) if self.markers else encode_part(text.tokenizer, part)
        channels = {"sentence": self._starts(part, covered)} if self.sentences else {}
        begin = text.before if part.begins else ()
        end = (text.tokenizer.eos_id,) if part.ends else ()
        # of a text that is nothing to the tokenizer, the end of text covers all
        behind = Encoded(np.array(end, np.int32), np.array([part.size - int(covered.sum())] * len(end), np.int32))
        return joined(special(*begin), Encoded(ids, covered, channels), behind)

    def _marked(self, part: TextPart, text: TextFormat) -> Sized:
        """As `encode_part`, with its markers as special tokens, which cover what spells them."""
        split = re.split(f"({'|'.join(map(re.escape, sorted(self.markers, key=len, reverse=True)))})", part.text)
        sized = [encode_part(text.tokenizer, part._replace(text=split[0]))]
        for marker, after in zip(split[1::2], split[2::2], strict=True):
            sized.append(Sized(np.array([text.tokenizer.piece_id(marker)]), np.array([len(marker.encode())])))
            sized.append(text.tokenizer.encode_sized(after))
        ids, covered = (np.concatenate(column).astype(np.int32) for column in zip(*sized, strict=True))
        return Sized(ids, covered)

    def _starts(self, part: TextPart, covered: np.ndarray) -> np.ndarray:
        """1 for each token of a part in which a sentence begins."""
        known = len(part.context)
        cut = not part.begins and not known  # nothing is known of what comes before
        found = (match.end() - known for match in STARTS[self.sentences].finditer(part.context + part.text))
        starts = [(at, at + 1) for at in found if at >= 0 and not (cut and at == 0)]
        marks = np.zeros(len(covered), np.int32)
        first = token_ranges(part.text, covered, starts, "sentences")[:, 0]
        marks[first[first < len(marks)]] = 1
        return marks


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) >= 2 and all(type(x) is int for x in span[:2])
