"""Examples that ask for some tokens of a row one after another, in a random order."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import positions_in


@dataclasses.dataclass(frozen=True)
class PermutedRows:
    """Queries behind each row, for `share` of its tokens in spans of 1 to `longest`: see `Permutation`."""

    share: float
    longest: int

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [length + 1]}, whose last token is left out, -> tokens, segments, positions,
        order [length + asked]: the row and behind it a query for each token to predict; targets, weights [asked], and
        of one with bytes those of each target."""
        tokens, segments = row["tokens"][:-1], row["segments"][:-1]
        asked = max(1, round(self.share * len(tokens)))
        real = np.flatnonzero(segments > 0)
        at = rng.permutation(self._spans(real, min(asked, len(real)), rng))
        order = np.zeros(len(tokens), np.int32)
        order[at] = np.arange(1, len(at) + 1)
        short = asked - len(at)
        at = np.pad(at, (0, short))  # queries of weight 0, as rows have one shape

        def both(values: np.ndarray, queries: np.ndarray) -> np.ndarray:
            return np.concatenate([values, queries]).astype(np.int32)

        positions = positions_in(segments)
        return {
            "tokens": both(tokens, np.zeros(asked)),
            "segments": both(segments, segments[at]),
            "positions": both(positions, positions[at]),
            "order": both(order, ~order[at]),
            "targets": tokens[at].astype(np.int32),
            "weights": (np.arange(asked) < asked - short).astype(np.float32),
            **({"bytes": row["bytes"][at]} if "bytes" in row else {}),
        }

    def _spans(self, real: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """`wanted` of the positions `real`, in spans that begin anywhere; the last one drawn is cut to fit."""
        chosen = np.zeros(len(real), bool)
        while (missing := wanted - int(chosen.sum())) > 0:
            first = int(rng.choice(np.flatnonzero(~chosen)))
            span = np.arange(first, min(first + int(rng.integers(1, self.longest + 1)), len(real)))
            chosen[span[~chosen[span]][:missing]] = True
        return real[chosen]
