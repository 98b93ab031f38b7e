"""Examples of pairs of a text and its code, as an encoder and a decoder read either."""

import dataclasses
from typing import NamedTuple

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import positions_in


class PairTokens(NamedTuple):
    """Ids of special tokens: what an encoder reads begins with `first`; a decoder that writes code begins with `code`,
    one that writes text with `text`, one that reads code to tell whether it matches with `match`; `eos` ends all."""

    first: int = 0
    code: int = 0
    text: int = 0
    match: int = 0
    eos: int = 0


@dataclasses.dataclass(frozen=True)
class TextAndCodeExamples:
    """The five sequences of a pair. Longer texts are cut, and end as others do.

    texts, codes: lengths of both, special tokens included"""

    texts: int
    codes: int
    ids: PairTokens

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A row of one record {tokens, segments, part, target [S + 1]} -> tokens, segments, positions of

        - encoder/ [texts]: the text, and other/encoder/ [codes]: the code, both as the encoder reads them;
        - no prefix [codes]: the code to be written, and other/ [texts]: the text to be written;
        - matching/ [codes]: the code whole, which is judged;

        targets and weights of code/ [codes] and text/ [texts]; those of matching/ [3]: of the pair (1), of its text
        with another code and of its code with another text (0); and contrast/weights []. Weights are 0 where the row
        lacks either side."""
        real = row["segments"] > 0
        text = self._side(row["tokens"][real & (row["part"] == 0)], self.texts)
        code = self._side(row["tokens"][real & (row["part"] > 0) & (row["target"] > 0)], self.codes)
        both, ids = np.float32(len(text) > 1 and len(code) > 1), self.ids
        return {
            **_sequence("encoder/", [ids.first, *text], self.texts),
            **_sequence("other/encoder/", [ids.first, *code], self.codes),
            **_sequence("", [ids.code, *code[:-1]], self.codes),
            **_sequence("other/", [ids.text, *text[:-1]], self.texts),
            **_sequence("matching/", [ids.match, *code], self.codes),
            **_written("code/", code, self.codes, both),
            **_written("text/", text, self.texts, both),
            "matching/targets": np.array([1, 0, 0], np.int32),
            "matching/weights": np.full(3, both, np.float32),
            "contrast/weights": np.array(both, np.float32),
        }

    def _side(self, tokens: np.ndarray, length: int) -> np.ndarray:
        """Tokens and the end-of-text, with room for one more in front."""
        ended = len(tokens) and tokens[-1] == self.ids.eos
        return np.append(tokens[: len(tokens) - bool(ended)][: length - 2], self.ids.eos).astype(np.int32)


def _sequence(prefix: str, tokens: list[int], length: int) -> Example:
    pad = (0, length - len(tokens))
    segments = np.pad(np.ones(len(tokens), np.int32), pad)
    made = {
        "tokens": np.pad(np.array(tokens, np.int32), pad),
        "segments": segments,
        "positions": positions_in(segments),
    }
    return {prefix + name: values for name, values in made.items()}


def _written(prefix: str, tokens: np.ndarray, length: int, weight: np.float32) -> Example:
    pad = (0, length - len(tokens))
    weights = np.pad(np.full(len(tokens), weight, np.float32), pad)
    return {f"{prefix}targets": np.pad(tokens, pad), f"{prefix}weights": weights}
