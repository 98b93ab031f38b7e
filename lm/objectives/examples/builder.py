"""The protocol of example builders, and the wrapper that counts bytes.

Builders use numpy only: they run in data workers, which start without JAX; a test forbids importing it here."""

import dataclasses
from typing import Protocol

import numpy as np

Row = dict[str, np.ndarray]
Example = dict[str, np.ndarray]


class ExampleBuilder(Protocol):
    """A frozen dataclass: it travels to data workers by pickling."""

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens (`lm.data.packing`) -> arrays of the same shapes for every row, under keys of
        `lm.core.rows`: what the model reads, `targets` and `weights` (0 where nothing is predicted, as on padding), or
        those of each of several heads. If the row has `bytes`, also the bytes of text that each target covers.
        Rows of `lm.data.batches` also have the number of their `source` and their `index` in its stream.

        All randomness comes from `rng`, which is seeded by the row's address."""


@dataclasses.dataclass(frozen=True, eq=False)
class Covered:
    """Adds `bytes`, int32 []: how much text an example predicts. Summed over its targets: what the builder says of
    each, or else `sizes`, int32 [V], by token. Targets of named heads are not counted, and a builder may have counted.
    """

    build: ExampleBuilder
    sizes: np.ndarray

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        made = self.build(row, rng)
        if "targets" not in made:
            return {name: value for name, value in made.items() if name != "bytes"}
        if "bytes" in made and not np.ndim(made["bytes"]):
            return made
        covered = made["bytes"] if "bytes" in made else self.sizes[made["targets"]]
        return made | {"bytes": np.array(covered[made["weights"] > 0].sum(), np.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class FromSource:
    """Adds `source`, int32 []: the number under which the loss of the row's source is reported.

    numbers: that, by the number of the source in the run"""

    build: ExampleBuilder
    numbers: tuple[int, ...]

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        return self.build(row, rng) | {"source": np.array(self.numbers[int(row["source"])], np.int32)}
