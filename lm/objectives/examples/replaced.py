"""Examples in which a model replaces hidden tokens and another tells which."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, ExampleBuilder, Row


@dataclasses.dataclass(frozen=True)
class ReplacedExamples:
    """Rows of which some tokens are hidden, by `build`: for the generator. What the discriminator reads is drawn in the
    step; it has weight on every token of the text."""

    build: ExampleBuilder

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]} -> as `build`, whose targets (all of the text's tokens) and weights
        stand under generator/, and discriminator/weights [S]."""
        made = dict(self.build(row, rng))
        real = (made["segments"] > 0).astype(np.float32)
        hidden = {f"generator/{name}": made.pop(name) for name in ("targets", "weights")}
        return made | hidden | {"discriminator/weights": real}
