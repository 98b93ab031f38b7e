"""Examples in which each position predicts the token after it."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row


@dataclasses.dataclass(frozen=True)
class NextTokens:
    """Each token is predicted from those before it. With packed documents, a document's first token is not; with
    `targets_only`, only those are of which the row's channel `target` says so."""

    targets_only: bool = False

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]}, with positions or without -> tokens, targets, weights, segments,
        positions [S]; of one with bytes also those of text that each target covers."""
        tokens, segments = row["tokens"], row["segments"]
        same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
        if self.targets_only:
            same &= row["target"][1:] > 0
        return {
            "tokens": tokens[:-1],
            "targets": tokens[1:],
            "weights": same.astype(np.float32),
            "segments": segments[:-1],
            "positions": row["positions"][:-1] if "positions" in row else positions_in(segments[:-1]),
            **({"bytes": row["bytes"][1:]} if "bytes" in row else {}),
        }


def positions_in(segments: np.ndarray) -> np.ndarray:
    """Each token's index within its segment, int32."""
    index = np.arange(len(segments), dtype=np.int32)
    starts = np.concatenate([[True], segments[1:] != segments[:-1]])
    return index - np.maximum.accumulate(np.where(starts, index, 0)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class TokensAfterPrefix:
    """Next tokens behind a prefix of each document, cut anywhere within it: see `PrefixNextToken`."""

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """As `NextTokens`, and prefix, bool [S]."""
        made = NextTokens()(row, rng)
        segments, place = made["segments"], positions_in(made["segments"])
        lengths = np.bincount(segments, minlength=1)
        cut = rng.integers(1, np.maximum(lengths, 2))[segments]  # tokens of the prefix: one at least, and not all
        behind = (place >= cut - 1).astype(np.float32)  # the last token of the prefix predicts the first one behind
        return made | {"prefix": (segments > 0) & (place < cut), "weights": made["weights"] * behind}
