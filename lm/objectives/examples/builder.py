"""What an example builder is, and what every one of them is wrapped in.

Builders are numpy only: they run in data workers, which need not have JAX, and a test forbids its import here."""

import dataclasses
from typing import Protocol

import numpy as np

Row = dict[str, np.ndarray]
Example = dict[str, np.ndarray]


class ExampleBuilder(Protocol):
    """A frozen dataclass: it travels to data workers by pickling."""

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens (`lm.data.packing`) -> arrays of the same shapes for every row, under keys of
        `lm.core.rows`: what the model reads, `targets` and their `weights`. Where weights are 0 nothing is predicted;
        padding has none. Of a row with `bytes` also those that each target covers, where this is not for each target
        what its token stands for by itself.

        It draws from `rng` only, which is seeded by the row's address."""


@dataclasses.dataclass(frozen=True, eq=False)
class Covered:
    """A builder whose examples tell how many `bytes` of text they predict, int32 []: the sum of those that the builder
    tells of its targets, or else of `sizes`, int32[V], those that each token stands for."""

    build: ExampleBuilder
    sizes: np.ndarray

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        made = self.build(row, rng)
        covered = made["bytes"] if "bytes" in made else self.sizes[made["targets"]]
        return made | {"bytes": np.array(covered[made["weights"] > 0].sum(), np.int32)}
