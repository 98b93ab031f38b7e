"""How many bytes of a text each token covers, which turns losses into bits per byte."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Sized(NamedTuple):
    """The tokens of a text, and how many of its UTF-8 bytes each covers; these add up to the bytes of the text."""

    ids: np.ndarray  # int32[tokens]
    bytes: np.ndarray  # int32[tokens]


def sized(text: str, ids: Sequence[int] | np.ndarray, table: np.ndarray, ends: Callable[[], Sequence[int]]) -> Sized:
    """`table`: how many bytes each token of the vocabulary stands for by itself. Where these add up to the text's,
    they are the text's; else, of a tokenizer that changes, adds or drops any of it, `ends` decides: the character of
    the text behind each token. What is between two tokens, as white space may be, counts for the second, what is
    behind the last for the last, and a character of several tokens for the first of them."""
    ids = np.asarray(ids, np.int32)
    by_itself, total = table[ids], len(text.encode())
    if by_itself.sum() == total or not len(ids):
        return Sized(ids, by_itself)
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    before = np.cumsum(1 + np.searchsorted((0x80, 0x800, 0x10000), characters, side="right"))  # in UTF-8
    behind = np.maximum.accumulate(np.append(0, before)[np.asarray(ends())])
    behind[-1] = total
    return Sized(ids, np.diff(behind, prepend=0).astype(np.int32))
