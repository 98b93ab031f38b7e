"""How long a train step will take at least on a pod, told without compiling it: arithmetic, and what chips exchange.

Every axis of the mesh is taken for a ring of its own with two links, which is what small meshes on a torus get;
`tpu.roofline` measures the compiled program on the real one. fsdp's and data's exchanges overlap the arithmetic, those
within a layer (tensor, expert, context) do not."""

import dataclasses
import math
from typing import NamedTuple

import jax

from lm.core.component import components
from lm.core.mesh import Sharding
from lm.core.param import flatten
from lm.core.rules import FSDP, SLICE, STAGE
from lm.inspect.cost import training_flops
from lm.model.moe.layer import MoE
from lm.model.stack import Stack
from lm.train.chips import Chip
from lm.train.setup import Parts
from tpu.layouts import Layout

REACHED = 0.7  # share of a chip's peak that large multiplications reach
# Forward passes in a step, of 3 without rematerialisation. "dots" makes again what lies between multiplications, and
# attention: a guess, as attention's share differs.
PASSES = {"none": 3.0, "dots": 3.15, "full": 4.0}
LINKS = 2


class Time(NamedTuple):
    """Seconds of a step, by what takes them."""

    compute: float
    recomputation: float
    bubble: float  # idle stages
    weights: float  # gathering and reducing over fsdp and data, beyond what the arithmetic hides
    layers: float  # exchanges within layers: tensor, expert, context
    update: float  # the optimizer's pass over memory

    @property
    def step(self) -> float:
        return sum(self)

    def against(self, other: "Time") -> str:
        """What takes longer than in that one."""
        gaps = {name: mine - its for name, mine, its in zip(self._fields, self, other, strict=True)}
        worst = max(gaps, key=gaps.__getitem__)
        return f"{1e3 * gaps[worst]:.0f} ms more for {WORDS[worst]}"


WORDS = {
    "compute": "arithmetic that fewer chips share",
    "recomputation": "recomputation",
    "bubble": "idle stages of the pipeline",
    "weights": "gathering weights and reducing gradients",
    "layers": "exchanges within layers",
    "update": "the optimizer's pass over memory",
}


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What is counted once of a config, for all layouts."""

    parts: Parts
    chip: Chip
    flops: float  # of the step, of all chips, without recomputation
    tokens: int
    width: int
    layers: int
    routed: int  # copies of each token that go to experts, over all layers
    weights: tuple[tuple[tuple[str | None, ...], tuple[int, ...]], ...]  # axes and shape of each tensor

    @classmethod
    def of(cls, parts: Parts, chip: Chip) -> "Estimator":
        config, batch = parts.config, parts.abstract_batch
        encoder = batch.get("encoder/tokens")
        row = training_flops(parts.model, batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1])
        stacks = [c for c in components(parts.model) if isinstance(c, Stack)]
        routed = sum(
            group.repeats * round(part.router.k)
            for stack in stacks
            for group in stack.segments
            for part in components(group)
            if isinstance(part, MoE)
        )
        spec = dict(flatten(parts.program.spec()))
        width = max((n for p in spec.values() for n, a in zip(p.shape, p.axes, strict=True) if a == "embed"), default=1)
        return cls(
            parts,
            chip,
            row * config.data.batch_size,
            config.data.batch_size * config.data.length,
            width,
            sum(stack.layers for stack in stacks),
            routed,
            tuple((p.axes, p.shape) for p in spec.values()),
        )

    def time(self, layout: Layout, sharding: Sharding | None, chips: int, memory: int) -> Time:
        """`memory`: bytes of the state on a chip."""
        size = dict(sharding.mesh.shape) if sharding is not None else {}
        once = self.flops / chips / (self.chip.flops * REACHED)
        again = once * (PASSES[layout.remat] / 3 - 1)
        stages = size.get(STAGE, 1)
        bubble = (once + again) * (stages - 1) / max(layout.microbatches, 1)
        update = 2 * memory / self.chip.bandwidth
        if sharding is None:
            return Time(once, again, bubble, 0.0, 0.0, update)
        exposed = max(self._of_weights(sharding, layout) - 0.9 * (once + again), 0.0)
        return Time(once, again, bubble, exposed, self._in_layers(sharding, layout), update)

    def _of_weights(self, sharding: Sharding, layout: Layout) -> float:
        """Gathered once a forward pass and microbatch, reduced once a microbatch (over slices once a step)."""
        size, wide = sharding.mesh.shape, self.parts.dtype.itemsize
        whole = dataclasses.replace(sharding, zero=1)
        here = 0  # bytes that a chip needs of all weights, in the precision of the computation
        for axes, shape in self.weights:
            cut = jax.tree.leaves(tuple(whole.spec([a if n > 1 else None for n, a in zip(shape, axes, strict=True)])))
            here += wide * math.prod(shape) // math.prod(size[a] for a in cut)
        ring = LINKS * self.chip.link
        fsdp, data, slices = (size.get(axis, 1) for axis in (FSDP, "data", SLICE))
        gathers = (2 if layout.remat == "none" else 3) - 1 if sharding.zero == 3 else 1
        seconds = layout.accumulate * (gathers + 1) * here * (fsdp - 1) / fsdp / ring
        seconds += layout.accumulate * 2 * here / fsdp * (data - 1) / data / ring
        if slices > 1 and self.chip.dcn:
            seconds += 2 * here / fsdp * (slices - 1) / slices / self.chip.dcn
        return seconds

    def _in_layers(self, sharding: Sharding, layout: Layout) -> float:
        size, ring = sharding.mesh.shape, LINKS * self.chip.link
        tokens = self.tokens / sharding.ways("batch") / sharding.ways("seq") / size.get(STAGE, 1)
        row = tokens * self.width * self.parts.dtype.itemsize  # bytes of one activation on a chip, in the whole step
        again = PASSES[layout.remat] == PASSES["full"]
        tensor, expert, context = (size.get(axis, 1) for axis in ("tensor", "expert", "context"))
        # Two sub-layers, each summed over the axis in the forward and in the backward pass: all-reduces go round twice.
        seconds = self.layers * 2 * (2 + again) * 2 * row * (tensor - 1) / tensor / ring
        # There and back, twice in the backward pass; an all-to-all of a ring passes a quarter of its chips on average.
        seconds += self.routed * 2 * (2 + again) * row * (expert - 1) / expert * max(expert / 4, 1) / 2 / ring
        # Keys and values once round, and with their gradients again.
        seconds += self.layers * 2 * (3 + again) * row * (context - 1) / ring
        return seconds
