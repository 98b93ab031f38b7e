"""Programs: what is trained, saved and served, a model and the transforms of its parameters."""

import dataclasses

import jax

from lm.core.param import Param, Tree, initialize, map_paths, partition
from lm.core.transform import Transform
from lm.model.transformer import Model


@dataclasses.dataclass(frozen=True)
class Program:
    """A model and a tuple of `lm.core.transform.Transform`s, applied in order.

    `spec()` is the spec for whoever holds parameters: trainer, checkpoints, sharding. Parameters of a program go where
    those of its model do (`program.model.hidden(params, ...)`): what a transform changed answers as the weight did.
    Without transforms a program is its model."""

    model: Model
    transforms: tuple[Transform, ...] = ()

    def spec(self) -> Tree:
        """One `Param` for each tensor."""
        return self._specs()[-1]

    def _specs(self) -> list[Tree]:
        """The model's, and after each transform."""
        found = [self.model.spec()]
        for transform in self.transforms:
            found.append(transform.spec(found[-1]))
        return found

    def initialize(self, key: jax.Array) -> Tree:
        """Parameters of a new model, transformed. The model's own are those that it has without transforms."""
        return self.transform(initialize(self.model.spec(), key), key)

    def transform(self, params: Tree, key: jax.Array) -> Tree:
        """The program's parameters, given the model's."""
        for i, (transform, spec) in enumerate(zip(self.transforms, self._specs(), strict=False)):
            params = transform.init(spec, params, jax.random.fold_in(key, i))
        return params

    def merge(self, params: Tree) -> Tree:
        """The model's parameters, given the program's: with them the model computes the same, within rounding.

        Raises `UserError` where a transform cannot be undone."""
        for transform in reversed(self.transforms):
            params = transform.merge(params)
        return params

    def trainable(self, path: str, p: Param) -> bool:
        """Whether the transforms let training move this tensor of `spec()`."""
        return all(transform.trainable(path, p) for transform in self.transforms)

    def split(self, params: Tree) -> tuple[Tree, Tree]:
        """(what may move, what may not): two trees with None where the other has the tensor."""
        return partition(params, map_paths(self.trainable, self.spec()))
