"""Examples of pairs for an encoder-decoder."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import positions_in


@dataclasses.dataclass(frozen=True)
class PairedRows:
    """Rows of pairs, each pair a segment, split into what the encoder reads and what the decoder writes.

    inputs, targets: lengths of both, which the packing has seen to (`Needs.sides`)"""

    inputs: int
    targets: int

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments, part, target [length + 1]} -> encoder/tokens, encoder/segments,
        encoder/positions [inputs]; tokens, targets, weights, segments, positions [targets], where no pair predicts from
        another; of one with bytes also those of each target. The targets are the tokens of part 1 that follow another
        of their pair, and have weight where `target` says so."""
        tokens, segments, real = row["tokens"], row["segments"], row["segments"] > 0
        read, written = np.flatnonzero(real & (row["part"] == 0)), np.flatnonzero(real & (row["part"] > 0))
        follows = segments[written[1:]] == segments[written[:-1]]
        seen, asked = written[:-1][follows], written[1:][follows]
        encoder = _side(tokens[read], segments[read], self.inputs)
        return {f"encoder/{name}": values for name, values in encoder.items()} | {
            **_side(tokens[seen], segments[seen], self.targets),
            "targets": _padded(tokens[asked], self.targets),
            "weights": _padded((row["target"][asked] > 0).astype(np.float32), self.targets),
            **({"bytes": _padded(row["bytes"][asked], self.targets)} if "bytes" in row else {}),
        }


def _side(tokens: np.ndarray, segments: np.ndarray, length: int) -> Example:
    segments = _padded(segments, length)
    return {"tokens": _padded(tokens, length), "segments": segments, "positions": positions_in(segments)}


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values, (0, length - len(values)))
