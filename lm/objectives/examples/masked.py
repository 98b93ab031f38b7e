"""Examples with some tokens hidden, to be predicted from the rest on both sides."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import positions_in


@dataclasses.dataclass(frozen=True)
class HiddenTokens:
    """Rows of which a `share` of the tokens is hidden: see `MaskedTokens`.

    mask: the id that stands for a hidden token
    vocab: random tokens are drawn from ids below it
    kept: ids that are never hidden: end-of-text and the like"""

    share: float
    masked: float
    random: float
    mask: int
    vocab: int
    kept: tuple[int, ...] = ()

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]} -> tokens, targets, weights, segments, positions [S]; of one with
        bytes also those of each target."""
        # Rows overlap by a token, for next-token prediction; without its first, a token is in one row only.
        tokens, segments = row["tokens"][1:], row["segments"][1:]
        text = np.flatnonzero((segments > 0) & ~np.isin(tokens, self.kept))
        asked = rng.permutation(text)[: max(1, round(self.share * len(text)))]
        drawn = rng.random(len(asked))
        shown = tokens.copy()
        shown[asked[drawn < self.masked]] = self.mask
        noisy = asked[(drawn >= self.masked) & (drawn < self.masked + self.random)]
        shown[noisy] = rng.integers(0, self.vocab, len(noisy))
        return {
            "tokens": shown,
            "targets": tokens,
            "weights": np.isin(np.arange(len(tokens)), asked).astype(np.float32),
            "segments": segments,
            "positions": positions_in(segments),
            **({"bytes": row["bytes"][1:]} if "bytes" in row else {}),
        }
