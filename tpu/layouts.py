"""The ways to lay a train step out over a pod: meshes, what fsdp shares out, rematerialisation, microbatches, a
pipeline's schedules; and why some are impossible."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections.config_dict import ConfigDict

from lm.core.component import components
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.rules import FSDP, MESH_AXES, SLICE, STAGE
from lm.core.walk import Scan, Walk
from lm.model.moe.layer import MoE
from lm.model.transformer import Model
from lm.parallel.one_forward_one_backward import check_compiles
from lm.train.parallel import SCHEDULES, execution_of, sharding_of

POLICIES = ("none", "dots", "full")  # of rematerialisation, from the fastest to the smallest
LONG = 16384  # tokens of a row, from which on rows are cut as well
WAVES = (1, 2, 4)  # microbatches of a pipeline over its stages: more of them leave less time idle
MOST_TENSOR = 16  # chips that share one multiplication: what they exchange cannot be hidden


class Layout(NamedTuple):
    """A choice. `mesh`: axes of more than one chip, without the pipeline's; `stages`, `microbatches` and `schedule` are
    its; `zero`: what fsdp shares out (`lm.core.mesh.Sharding`)."""

    mesh: tuple[tuple[str, int], ...]
    stages: int
    remat: str
    accumulate: int
    zero: int = 3
    microbatches: int = 0
    schedule: str = "gpipe"

    def __str__(self) -> str:
        axes = [*([f"{STAGE}={self.stages}"] if self.stages > 1 else []), *(f"{k}={v}" for k, v in self.mesh)]
        more = [f"{self.accumulate} microbatches"] if self.accumulate > 1 else []
        more += [f"{self.microbatches} microbatches by {self.schedule}"] if self.stages > 1 else []
        more += [f"ZeRO {self.zero}"] if self.zero < 3 else []
        return ", ".join([" x ".join(axes) or "one chip", f"remat {self.remat}", *more])

    @property
    def knobs(self) -> dict[str, Any]:
        """As they are overridden in a config."""
        own = {"train.remat": self.remat, "train.accumulate": self.accumulate, "parallel.zero": self.zero}
        own |= {"parallel.pipeline": self.stages, "parallel.microbatches": self.microbatches}
        own |= {"parallel.schedule": self.schedule}
        return {f"mesh.{axis}": dict(self.mesh).get(axis, 1) for axis in MESH_AXES if axis != STAGE} | own

    @property
    def walk(self) -> Walk:
        return SCHEDULES[self.schedule](self.microbatches) if self.stages > 1 else Scan()

    def flags(self, config: ConfigDict) -> list[str]:
        """What makes that config one with this layout."""
        sections = {path: path.split(".") for path in self.knobs}
        had = {path: config[section].get(name, 1) for path, (section, name) in sections.items()}
        return [f"--config.{path}={value}" for path, value in self.knobs.items() if value != had[path]]

    def applied(self, config: ConfigDict) -> ConfigDict:
        """That config with this layout."""
        made = copy.deepcopy(config)
        with made.unlocked():
            made.mesh.update({axis: dict(self.mesh).get(axis, 1) for axis in (*made.mesh, *dict(self.mesh))})
            made.train.remat, made.train.accumulate = self.remat, self.accumulate
            made.parallel.update(pipeline=self.stages, zero=self.zero)
            made.parallel.update(microbatches=self.microbatches, schedule=self.schedule)
        return made


def meshes(model: Model, config: ConfigDict, chips: int, slices: int = 1) -> Iterator[tuple[dict[str, int], int]]:
    """Meshes that multiply to `chips` chips over `slices`, with the number of stages: over every axis that this model
    and its rows have a use for."""
    axes = ["data", "fsdp", "tensor"]
    if any(isinstance(part, MoE) for part in components(model)):
        axes.append("expert")
    if config.data.length >= LONG:
        axes.append("context")
    axes.append(STAGE)
    most = {"tensor": MOST_TENSOR}
    for sizes in _products(chips // slices, len(axes)):
        found = dict(zip(axes, sizes, strict=True))
        if all(found[axis] <= limit for axis, limit in most.items() if axis in found):
            stages = found.pop(STAGE)
            own = ({SLICE: slices} if slices > 1 else {}) | {k: found[k] for k in MESH_AXES if found.get(k, 1) > 1}
            yield own, stages


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """All ways to write it as a product of so many factors, in order."""
    if factors == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _products(number // first, factors - 1):
                yield (first, *rest)


@dataclasses.dataclass(frozen=True)
class Search:
    """All layouts of a config on these devices."""

    config: ConfigDict
    model: Model
    spec: Any  # of the program
    devices: Sequence[jax.Device]
    slices: int = 1

    def __iter__(self) -> Iterator[tuple[Sharding | UserError | None, list[Layout]]]:
        """Each way that weights may lie, and all layouts in which they do; or what stands against a mesh, with one of
        its layouts. Schedules that a pipeline of this model cannot have are passed over."""
        for mesh, stages in meshes(self.model, self.config, len(self.devices), self.slices):
            layout = Layout(tuple(mesh.items()), stages, POLICIES[0], 1, microbatches=stages)
            try:
                sharding = self._check(layout)
            except UserError as e:
                yield e, [layout]
                continue
            rows = self.config.data.batch_size // (1 if sharding is None else sharding.ways("batch"))
            ways = [layout._replace(accumulate=n) for n in range(1, rows + 1) if rows % n == 0]
            if stages > 1:
                pairs = itertools.product(WAVES, SCHEDULES)
                ways = [layout._replace(microbatches=n * stages, schedule=schedule) for n, schedule in pairs]
                ways = [way for way in ways if self._possible(way)]
            for zero in (3, 2, 1) if FSDP in mesh else (3,):
                cut = None if sharding is None else dataclasses.replace(sharding, zero=zero)
                yield cut, [way._replace(remat=remat, zero=zero) for remat in POLICIES for way in ways]

    def _possible(self, layout: Layout) -> bool:
        try:
            sharding = self._check(layout)
            if sharding is not None and layout.schedule == "1f1b":
                check_compiles(sharding, self.config.train.attention or None)
        except UserError:
            return False
        return True

    def _check(self, layout: Layout) -> Sharding | None:
        """How its weights lie. Raises `UserError` where it is impossible."""
        config = layout.applied(self.config)
        execution_of(config, self.model)  # stages
        sharding = sharding_of(config, self.devices)
        if sharding is not None:
            sharding.tree(self.spec)
            if (ways := sharding.ways("seq")) > 1 and config.data.length % ways:
                raise UserError(f"{config.data.length} tokens of a row do not divide over {ways} chips")
        return sharding


def reasons(refused: Mapping[Layout, UserError]) -> dict[str, list[Layout]]:
    """The layouts that are impossible, by why: what they have in common of a line, without its numbers."""
    found: dict[str, list[Layout]] = {}
    for layout, error in refused.items():
        found.setdefault(str(error).split(":")[0], []).append(layout)
    return found
