"""Examples of several objectives of one row, and of the two texts of a pair."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, ExampleBuilder, Row
from lm.objectives.examples.next_token import positions_in

OF_LOSS = ("targets", "weights")


@dataclasses.dataclass(frozen=True)
class TogetherExamples:
    """What each of several objectives makes of a row, under its name. What the last one's model reads stands there
    without a name, as in a batch of that alone.

    builds: (name, builder)"""

    builds: tuple[tuple[str, ExampleBuilder], ...]

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        made: Example = {}
        for (name, build), own in zip(self.builds, rng.spawn(len(self.builds)), strict=True):
            example = {key: value for key, value in build(row, own).items() if key != "bytes"}
            plain = name == self.builds[-1][0]
            made |= {key if plain and key not in OF_LOSS else f"{name}/{key}": v for key, v in example.items()}
        return made


@dataclasses.dataclass(frozen=True)
class TwoTexts:
    """The two texts of a pair, each in a row of its own, or twice the same text.

    length: tokens of each
    same: a text beside itself"""

    length: int
    same: bool

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A row of one record {tokens, segments, part [S + 1]} -> tokens, segments, positions [length], the same
        of the other under other/, and pair/weights []: 1 where there are both."""
        real = row["segments"] > 0
        sides = [real, real] if self.same else [real & (row["part"] == part) for part in (0, 1)]
        first, other = (self._side(row["tokens"][side]) for side in sides)
        both = np.array(all(side.any() for side in sides), np.float32)
        return first | {f"other/{name}": value for name, value in other.items()} | {"pair/weights": both}

    def _side(self, tokens: np.ndarray) -> Example:
        tokens = tokens[: self.length]
        pad = (0, self.length - len(tokens))
        segments = np.pad(np.ones(len(tokens), np.int32), pad)
        return {
            "tokens": np.pad(tokens, pad).astype(np.int32),
            "segments": segments,
            "positions": positions_in(segments),
        }
