"""Long texts in parts whose tokens, one part after another, are the tokens of the whole.

A tokenizer says of a place in a text whether a token could reach over it (`joins`): by its vocabulary, no piece of
which spans the place, by its pre-tokenizer, which parts words there whatever stands before, or by trying all that could
stand on either side. A part is then encoded with a little of the text before it, of which the tokens are dropped: so
nothing that a tokenizer does at the beginning of a text happens within one.

Two ways through a unigram vocabulary that are equally likely may be told apart by the rounding of all that came before
them: there, and only there, a part may differ from the whole.

Where a text has no such place for MOST characters, it is cut there nevertheless, and that is told.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from lm.data.progress import tell
from lm.text.covered import Sized
from lm.text.tokenizers import Tokenizer

PART = 1 << 16  # characters; byte pairs of a longer text are slower to find, and take fifty times its size in memory
MOST = 1 << 22
CONTEXT = 64  # characters before a part that are encoded with it
WORDS, PLACES = 64, 256  # places that are tried before a text is said to have none: between words, then any


class Part(NamedTuple):
    """Of a document, so much as is encoded at once."""

    text: str
    context: str = ""  # what stands before it in the document
    begins: bool = True  # its document
    ends: bool = True


def parts_of(name: str, pieces: Iterator[str], tokenizer: Tokenizer, size: int = PART) -> Iterator[Part]:
    """The parts, of about `size` characters, of the document with these pieces. An empty one is a part without text."""
    rest, context, begins = "", "", True
    tried, told = 0, False  # characters of `rest` that have been searched in vain; whether a doubtful cut was told
    for piece in pieces:
        rest += piece
        while len(rest) > size + CONTEXT and len(rest) > tried:
            at = find_cut(tokenizer, rest, len(rest) if tried else size)
            if at is None and len(rest) < max(MOST, 2 * size):
                tried = len(rest)  # there may be one in what follows
                continue
            sure, at = at is not None, at or len(rest) - CONTEXT
            if not sure and not told:
                told = True
                tell(
                    f"{name}: tokens may reach over any place in {len(rest):,} characters; it is cut in the midst "
                    f"there, and wherever it goes on so; a token or two ({rest[at - 8 : at + 8]!r}) may differ for that"
                )
            yield Part(rest[:at], context, begins, False)
            context, begins, tried = rest[max(0, at - CONTEXT) : at] if sure else "", False, 0
            rest = rest[at:]
    yield Part(rest, context, begins, True)


def encode_part(tokenizer: Tokenizer, part: Part) -> Sized:
    """The tokens of a part, and the bytes of its text that each covers."""
    if not part.context:
        return tokenizer.encode_sized(part.text)
    known = len(tokenizer.encode(part.context))
    ids, covered = tokenizer.encode_sized(part.context + part.text)
    covered = covered[known:].copy()
    if len(covered):  # what a tokenizer drops before the cut counts for the token before it, here as there
        covered[0] += len(part.text.encode()) - int(covered.sum())
    return Sized(ids[known:], covered)


def find_cut(tokenizer: Tokenizer, text: str, near: int) -> int | None:
    """The last place up to `near`, or else the first after it, that no token of the text reaches over."""
    return next((at for at in _places(text, near) if _parts(tokenizer, text, at)), None)


def _places(text: str, near: int) -> Iterator[int]:
    """Where to try, the likeliest first: before white space, which most tokenizers leave to the next word."""
    first, last = CONTEXT, len(text) - CONTEXT
    backward = range(min(near, last), first, -1)
    words = (at for at in chain(backward, range(near + 1, last)) if text[at].isspace() and not text[at - 1].isspace())
    yield from islice(words, WORDS)
    yield from backward[:PLACES]


def _parts(tokenizer: Tokenizer, text: str, at: int) -> bool:
    """Whether no token reaches over this place: what the tokenizer says, and what it does, whatever stands before."""
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
