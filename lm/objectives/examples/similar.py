"""Similar words in the place of masks (MacBERT, Cui et al. 2020, arXiv 2004.13922)."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lm.core.errors import UserError
from lm.objectives.examples.hiding import MaskableRow, words_of

Word = tuple[int, ...]  # its tokens


@dataclasses.dataclass(frozen=True)
class SimilarWords:
    """table: by the tokens of a word, other words of as many tokens, int32 [words, tokens]"""

    table: Mapping[Word, np.ndarray] = dataclasses.field(compare=False)

    def replace(self, shown: np.ndarray, row: MaskableRow, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Put similar words in the place of the words that are hidden whole at indices `at` of `shown` [S]. Returns
        the indices of the others, of which nothing similar is known."""
        chosen, left = np.isin(np.arange(len(shown)), at), []
        for first, end in words_of(row).tolist():
            if chosen[first:end].all() and (similar := self.table.get(tuple(shown[first:end].tolist()))) is not None:
                shown[first:end] = similar[rng.integers(len(similar))]
            else:
                left.append(first + np.flatnonzero(chosen[first:end]))
        return np.concatenate([np.zeros(0, np.int64), *left])


def read_similar(path: str, encode: Callable[[str], np.ndarray]) -> SimilarWords:
    """Of a file of lines `word <tab> similar word <tab> similar word ..`. `encode`: the tokens of a text. A word is
    looked up as it stands behind a space and as it begins a text; of its similar words those count that have as many
    tokens. Raises `UserError`."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise UserError(
            f"cannot read the table of similar words {path}: {e.strerror}; set config.objective.similar"
        ) from e
    except UnicodeDecodeError as e:
        raise UserError(f"the table of similar words {path} is not UTF-8 (byte {e.start}): convert it") from e
    found: dict[Word, set[Word]] = {}
    for number, line in enumerate(lines, 1):
        word, *others = (cell.strip() for cell in line.split("\t"))
        if not line.strip():
            continue
        if not word or not any(others):
            raise UserError(
                f"{path}, line {number}: give a word and its similar words with tabs between them, not {line[:40]!r}"
            )
        for space in ("", " "):
            key = tuple(encode(space + word).tolist())
            same = {tuple(encode(space + other).tolist()) for other in others if other}
            found.setdefault(key, set()).update(other for other in same if len(other) == len(key) and other != key)
    table = {word: np.array(sorted(others), np.int32) for word, others in found.items() if others and word}
    if not table:
        raise UserError(
            f"of the words in {path} none has a similar one of as many tokens: take a tokenizer with larger pieces, or "
            "give more words"
        )
    return SimilarWords(table)
