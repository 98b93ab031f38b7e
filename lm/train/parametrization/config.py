"""config.parametrization: how a model takes over what was tuned on a smaller one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm.core.errors import UserError
from lm.core.ownership import walk
from lm.core.param import Tree, map_paths
from lm.core.ranges import Share
from lm.model.program import Program
from lm.model.stack import Stack
from lm.model.transformer import Model
from lm.train.parametrization.growth import Growth, compared
from lm.train.parametrization.multipliers import multiplied
from lm.zoo.registry import build

Knobs = Mapping[str, Any]  # config.model


@dataclasses.dataclass(frozen=True)
class Parametrization:
    """The standard one, or muP with CompleteP's rule for depth: see `lm.train.parametrization.growth`. Learning rate,
    weight decay, eps and initial values of a config are then those of the base model, from which its own follow."""

    # Knobs of config.model in which the base differs: (("d_model", 64), ("heads", 4), ("layers", 2)); (): it is the
    # model itself, which is the standard parametrization
    base: tuple[tuple[str, Any], ...] = ()
    # What layers add is multiplied by (layers / the base's) ** -alpha: 1 is CompleteP, which alone makes every layer
    # learn features at any depth; 0.5 keeps states from growing; 0: depth is left alone
    alpha: Share = 1.0

    def __post_init__(self) -> None:
        if 0 < self.alpha < 0.5:
            raise UserError(
                f"config.parametrization.alpha={self.alpha} lets states grow with depth: take 1 or 0.5, or 0 for none"
            )

    def model(self, model: Model, knobs: Knobs) -> Model:
        """The model that these knobs describe, with the multipliers of its forward pass.

        Raises `UserError` where the base is no smaller or larger one of its kind."""
        if not self.base:
            return model
        base = self._base(knobs)
        compared(model.spec(), base.spec(), {}, self.alpha)
        return multiplied(model, base, (model.spec(), base.spec()), self.alpha)

    def growth(self, program: Program, knobs: Knobs) -> Tree:
        """A `Growth` for each tensor of the program, whose model has these knobs."""
        spec = program.spec()
        if not self.base:
            return map_paths(lambda _, p: Growth(p), spec)
        base = self._base(knobs)
        layers = _layers(base)
        depths = {path: n / layers[path] for path, n in _layers(program.model).items()} if self.alpha else {}
        return compared(spec, dataclasses.replace(program, model=base).spec(), depths, self.alpha)

    def _base(self, knobs: Knobs) -> Model:
        if "family" not in knobs:
            raise UserError(
                "config.parametrization.base says which knobs of a family differ, but config.model is a tree of "
                "components: give it by family"
            )
        try:
            return build({**knobs, **dict(self.base)})
        except UserError as e:
            raise UserError(f"config.parametrization.base: {e}") from e


def _layers(model: Model) -> dict[str, int]:
    """How many layers the stack at each path has."""
    return {
        visit.path: visit.component.layers for visit in walk(model, model.spec()) if isinstance(visit.component, Stack)
    }
