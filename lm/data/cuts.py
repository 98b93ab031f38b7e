"""Cut long texts into parts so that the tokens of the parts, concatenated, equal the tokens of the whole text.

A tokenizer says whether a token could span a given position (`joins`): by its vocabulary (no piece spans it), by its
pre-tokenizer (words are always split there), or by trying everything that could stand on either side. Each part is then
encoded together with a little of the text before it, and the tokens of that context are dropped, so that nothing a
tokenizer does at the beginning of a text happens in the middle of one.

One exception: where two segmentations under a unigram vocabulary are equally likely, rounding errors accumulated over
the preceding text decide between them, so there a part may differ from the whole.

If MOST characters go by without a safe position, the text is cut anyway, with a warning.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from lm.data.progress import tell
from lm.text.covered import Sized
from lm.text.tokenizers import Tokenizer

PART = 1 << 16  # characters; BPE is slower on longer texts, and takes fifty times their size in memory
MOST = 1 << 22
CONTEXT = 64  # characters before a part that are encoded along with it
WORDS, ANYWHERE = 64, 256  # positions tried before giving up: between words, then anywhere


class TextPart(NamedTuple):
    """The part of a document that is encoded at once."""

    text: str
    context: str = ""  # the text before it in the document
    begins: bool = True  # whether it is the first part of its document
    ends: bool = True

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return len(self.text.encode())


def parts_of(name: str, pieces: Iterator[str], tokenizer: Tokenizer, size: int = PART) -> Iterator[TextPart]:
    """Cut the document made of these pieces into parts of about `size` characters. An empty document is one empty
    part."""
    rest, context, begins = "", "", True
    tried, warned = 0, False  # characters of `rest` searched without success; whether an unsafe cut was reported
    for piece in pieces:
        rest += piece
        while len(rest) > size + CONTEXT and len(rest) > tried:
            at = find_cut(tokenizer, rest, len(rest) if tried else size)
            if at is None and len(rest) < max(MOST, 2 * size):
                tried = len(rest)  # there may be one in the text to come
                continue
            sure, at = at is not None, at or len(rest) - CONTEXT
            if not sure and not warned:
                warned = True
                tell(
                    f"{name}: tokens may reach over any place in {len(rest):,} characters; it is cut in the midst "
                    f"there, and wherever it goes on so; a token or two ({rest[at - 8 : at + 8]!r}) may differ for that"
                )
            yield TextPart(rest[:at], context, begins, False)
            context, begins, tried = rest[max(0, at - CONTEXT) : at] if sure else "", False, 0
            rest = rest[at:]
    yield TextPart(rest, context, begins, True)


def encode_part(tokenizer: Tokenizer, part: TextPart) -> Sized:
    """The tokens of a part, and the bytes of its text that each token covers."""
    if not part.context:
        return tokenizer.encode_sized(part.text)
    known = len(tokenizer.encode(part.context))
    ids, covered = tokenizer.encode_sized(part.context + part.text)
    covered = covered[known:].copy()
    if len(covered):  # text that a tokenizer drops before the cut counts for the token before it, as in the whole
        covered[0] += len(part.text.encode()) - int(covered.sum())
    return Sized(ids[known:], covered)


def find_cut(tokenizer: Tokenizer, text: str, near: int) -> int | None:
    """The last position up to `near`, or else the first after it, that no token of the text spans."""
    return next((at for at in _places(text, near) if _parts(tokenizer, text, at)), None)


def _places(text: str, near: int) -> Iterator[int]:
    """Positions to try, most promising first: before white space, which most tokenizers attach to the next word."""
    first, last = CONTEXT, len(text) - CONTEXT
    backward = range(min(near, last), first, -1)
    words = (at for at in chain(backward, range(near + 1, last)) if text[at].isspace() and not text[at - 1].isspace())
    yield from islice(words, WORDS)
    yield from backward[:ANYWHERE]


def _parts(tokenizer: Tokenizer, text: str, at: int) -> bool:
    """Whether no token spans position `at`: by the tokenizer's own rules, and by encoding with any text before it."""
    if tokenizer.joins(text, at):
        return False
    right = text[at : at + CONTEXT]
    after = None
    for left in (text[at - n : at] for n in (*range(1, 17), CONTEXT)):
        head, whole = tokenizer.encode(left), tokenizer.encode(left + right)
        if not np.array_equal(whole[: len(head)], head):
            return False
        after = whole[len(head) :] if after is None else after
        if not len(after) or not np.array_equal(whole[len(head) :], after):
            return False
    return True
