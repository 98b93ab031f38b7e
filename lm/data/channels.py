"""Channels: what is known of each token of a corpus besides its id.

A token cache may hold further arrays, each aligned with its tokens; a packed row carries them under their names,
[length + 1], 0 on padding. `lm.data.records` makes them, example builders read them (`row["target"]`), and an objective
says which it cannot do without (`Needs.channels`). Annotations of a text come as offsets of characters: `token_ranges`
turns them into those of tokens.
"""

from collections.abc import Sequence

import numpy as np

from lm.core.errors import UserError

# Whole numbers, read as int32, or real ones, read as float32.
CHANNELS = {
    "target": "1 where a token is to be predicted: of a pair's target, of an assistant's turn",
    "part": "number of the text within a record: 0 the first (a pair's input), 1 the second (its target); "
    "of a dialogue, 0 where the user speaks and 1 where the assistant does",
    "label": "class or value: of each token, or of the record, the same on all of its tokens; "
    "of an answer, 1 on its first token, 2 on its last, 3 where these are one",
    "sentence": "1 where a sentence begins, or a turn of a dialogue",
    "span": "number of a given phrase or entity within its document, from 1; 0 outside",
}
MADE_BY = {  # what to set to have it, as an error says
    "target": "config.data.records.type=Pairs (or Chats)",
    "part": "config.data.records.type=Pairs (or Functions; Labelled with two texts; Dialogues)",
    "label": "config.data.records.type=Labelled (or Tagged, Answers)",
    "sentence": "config.data.records.sentences=lines (or punctuation), or type=Dialogues",
    "span": "config.data.records.spans to the field that lists them",
}


def token_ranges(text: str, covered: np.ndarray, spans: Sequence[Sequence[int]], where: str) -> np.ndarray:
    """int64[len(spans), 2]: the tokens, from first to behind the last, that cover any of the characters start to end of
    each span. `covered`: the bytes of the text that each of its tokens covers (`encode_sized`); `where`: whose they
    are, for errors.

    Raises `UserError` for a span that is empty or outside of the text."""
    if not len(spans):
        return np.zeros((0, 2), np.int64)
    characters = np.asarray([span[:2] for span in spans], np.int64)
    for start, end in characters.tolist():
        if not 0 <= start < end <= len(text):
            raise UserError(
                f"{where}: span [{start}, {end}] is none of this text of {len(text)} characters: give offsets of "
                "characters from 0, the end behind the last one"
            )
    offsets = byte_offsets(text)[characters]
    ends = np.cumsum(covered)
    first = np.searchsorted(ends, offsets[:, 0], side="right")
    behind = np.searchsorted(ends - covered, offsets[:, 1], side="left")
    return np.stack([first, behind], axis=1)


def byte_offsets(text: str) -> np.ndarray:
    """int64[characters + 1]: where each character begins in the UTF-8 of a text, and where the last one ends."""
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + np.searchsorted((0x80, 0x800, 0x10000), characters, side="right")
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
