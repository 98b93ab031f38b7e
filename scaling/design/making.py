"""From a design to cells that a sweep runs, and from a config to what designs may choose among."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.train.footprint import readable
from lm.train.setup import assemble

from ..cells import Cell
from ..ladder import Rung, ladder_of, rungs_between
from ..laws import Frontier
from ..rules import Rule, Run, rule_of
from ..trunks import MOST_EPOCHS, trunks_of
from .space import Design, Space

RUNGS = 28  # sizes that designs choose among
FEWEST_STEPS = 100  # of a run
SMALLEST = 1e-5  # share of all FLOPs for which the smallest size would be best
BESIDE = 4.0  # largest size / the best one for all FLOPs, and the best for the least share / the smallest


@dataclass(frozen=True)
class Template:
    """What cells are made with: the sweep's config, the tokens of a training row, and the rule for their knobs."""

    config: ConfigDict
    lengths: tuple[int, int]
    rule: Rule

    @classmethod
    def of(cls, config: ConfigDict, rule: str) -> "Template":
        """By the rule's name."""
        return cls(config, lengths_of(config), rule_of(rule, config))

    @property
    def row(self) -> int:
        """Tokens."""
        return sum(self.lengths)

    def rows(self, rung: Rung, tokens: float) -> int:
        """Of a step."""
        batch = self.rule(Run(rung, tokens, self.row)).batch
        return self.config.data.batch_size if batch is None else max(1, round(batch / self.row))


def run_config(template: Template, rung: Rung, tokens: float, seed: int = 0) -> ConfigDict:
    """The training run of a size on so many tokens, for `lm.train`: the last run of a trunk of its own."""
    cell = _cell(template, rung, tokens, tokens, math.nan, seed)
    (trunk,) = trunks_of(template.config, [cell], template.lengths, sys.maxsize)
    return trunk.config


def lengths_of(config: ConfigDict) -> tuple[int, int]:
    """Tokens of a training row of a sweep, and of its encoder's (0 without one), for which no data is opened."""
    batch = assemble(config, sharding=None).abstract_batch
    encoder = batch.get("encoder/tokens")
    return batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1]


def space_of(template: Template, law: Frontier, flops: float, *, shared: bool, corpus: float = math.inf) -> Space:
    """Sizes of the ladder around those that the law expects to be best. `shared`: runs of a size are cool-downs off one
    trunk. corpus: training tokens that there are."""
    (least, most), _ = law.optimal(np.array([SMALLEST * flops, flops]))
    rungs = tuple(
        rungs_between(
            template.config, ladder_of(template.config), least / BESIDE, most * BESIDE, RUNGS, template.lengths
        )
    )
    share = float(template.config.schedule.cooldown_fraction)
    shortest = [_shortest(template, rung) for rung in rungs]
    return Space(
        rungs, share if shared else 1.0, np.array(shortest), np.full(len(rungs), MOST_EPOCHS * corpus), template.row
    )


def _shortest(template: Template, rung: Rung) -> float:
    """Tokens of `FEWEST_STEPS`, whose batch may grow with the tokens."""
    tokens = float(FEWEST_STEPS * template.row)
    for _ in range(60):  # a batch grows with a power of tokens below one, so this settles
        needed = float(FEWEST_STEPS * template.rows(rung, tokens) * template.row)
        if needed <= tokens:
            break
        tokens = needed
    return tokens


def cells_of(design: Design, space: Space, template: Template, seed: int = 0) -> tuple[Cell, ...]:
    """Runs of whole steps, none longer than the design says. Those of one size, where they share a trunk, have the
    knobs of its middle length: a trunk has one learning rate."""
    cells = []
    for s in np.unique(design.sizes):
        own, rung = design[design.sizes == s], space.sizes[s]
        shared = float(np.exp(np.log(own.tokens).mean())) if space.cooldown < 1 else None
        for tokens, budget in zip(own.tokens, own.budgets, strict=True):
            cells.append(_cell(template, rung, float(tokens), shared or float(tokens), float(budget), seed))
    return tuple(cells)


def _cell(template: Template, rung: Rung, tokens: float, typical: float, budget: float, seed: int) -> Cell:
    said, optimizer = template.rule(Run(rung, typical, template.row)), template.config.optimizer
    rows = template.rows(rung, typical)
    steps = int(tokens / (rows * template.row) * (1 + 1e-12))
    if steps < 1:
        raise UserError(
            f"{rung.name} on {tokens:,.0f} tokens is less than a step of {rows} rows of {template.row} tokens"
        )
    b2 = optimizer.get("b2")
    return Cell(
        d_model=rung.d_model,
        layers=rung.layers,
        tokens=steps * rows * template.row,
        budget=None if math.isnan(budget) else budget,
        learning_rate=said.learning_rate,
        batch_size=rows,
        warmup=round(said.warmup if said.warmup is not None else template.config.sweep.warmup * rung.params),
        b2=b2 if b2 is None or said.b2 is None else said.b2,
        weight_decay=float(optimizer.weight_decay if said.weight_decay is None else said.weight_decay),
        seed=seed,
    )


def as_made(design: Design, space: Space, cells: Sequence[Cell]) -> Design:
    """The design with the tokens of its cells, which are whole steps."""
    index = {(r.d_model, r.layers): i for i, r in enumerate(space.sizes)}
    budgets = [math.nan if c.budget is None else c.budget for c in cells]
    return Design.of([index[c.d_model, c.layers] for c in cells], [c.tokens for c in cells], budgets)


def cost_of(cells: Sequence[Cell], space: Space) -> float:
    """FLOPs of all cells as they will be run, in whole steps: of each its cool-down, and of each trunk the steps before
    the last one's."""
    sizes = {(r.d_model, r.layers): r for r in space.sizes}
    cooling, trunks = 0.0, dict.fromkeys(sizes, 0.0)
    for cell in cells:
        shape = cell.d_model, cell.layers
        steps = cell.tokens // (cell.batch_size * space.row)
        branch = int(steps * (1 - space.cooldown))
        step = sizes[shape].flops * cell.batch_size * space.row
        cooling += (steps - branch) * step
        trunks[shape] = max(trunks[shape], branch * step)
    return cooling + sum(trunks.values())


def outside(design: Design, space: Space, template: Template) -> list[str]:
    """Where the rule has to reach beyond what its paper fitted, in a line or none."""
    said = [
        template.rule.outside(Run(space.sizes[s], d, template.row))
        for s, d in zip(design.sizes, design.tokens, strict=True)
    ]
    far = [line for line in said if line is not None]
    return [f"{len(far)} of {len(said)} runs: {far[0]}"] if far else []


def check_fit(template: Template, cells: Sequence[Cell], topology: str) -> list[str]:
    """Compiles a step of each shape and batch ahead of time, for this pod; a line on each. Raises `UserError` if one
    does not fit."""
    from tpu.ahead import report  # only those who ask for it need the compiler

    lines, large = [], []
    shapes = {(cell.d_model, cell.layers, cell.batch_size): cell for cell in cells}
    for trunk in trunks_of(template.config, shapes.values(), template.lengths, sys.maxsize):
        found = report(trunk.config, topology)
        used = f"{readable(found.memory.used)} of {readable(found.memory.available)} a chip"
        lines.append(f"{trunk.name}: {used}, {1e3 * found.time.step:.3g} ms a step")
        if not found.memory.fits:
            large.append(lines[-1])
    if large:
        raise UserError(
            f"{len(large)} of {len(lines)} shapes do not fit {topology} ({large[0]}): share out more of each model "
            "(--config.mesh.fsdp), take a larger pod, or give less --flops"
        )
    return lines
