"""Trunks: the training runs that cells share.

The learning rate of a sweep's runs is constant and falls only in a last share of the steps (warm-up, stable, decay;
Haegele et al. 2024, arXiv 2405.18392), so cells that differ in their number of tokens alone share a trunk: the run of
the longest one, off which each shorter one branches where its cool-down starts. Trunks of one program, which differ in
learning rate, weight decay, beta2 and seed, are a group, and may train together.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.train import config as train_config

from .cells import Cell, Size, model_config, size_of
from .laws import Array

MOST_EPOCHS = 4  # up to here repeated data is nearly as good as new (Muennighoff et al. 2023, arXiv 2305.16264)
WIDEST_GRID = 16  # largest / smallest model: a parabola in log N is biased on a wide grid (2603.22339)


@dataclass(frozen=True)
class Point:
    """What becomes a record: a cell as a run of `steps`, of which those from `branch` on are its cool-down."""

    cell: Cell
    steps: int
    branch: int
    flops: int
    tokens: int
    epochs: float


@dataclass(frozen=True, eq=False)
class Trunk:
    """The points of one run, shortest first. `config` is the training run (see `lm.train.config`) that the last one
    equals."""

    config: ConfigDict
    size: Size
    points: tuple[Point, ...]

    @property
    def cell(self) -> Cell:
        """What its points have in common, and the tokens of the last one."""
        return self.points[-1].cell

    @property
    def name(self) -> str:
        c = self.cell
        seed = f", seed {c.seed}" if c.seed else ""
        return f"d{c.d_model} x {c.layers}, rate {c.learning_rate:.3g}, {c.batch_size} rows{seed}"

    def rates(self, point: Point) -> Array:
        """The learning rate of each step of a point, [steps]; before `point.branch` the same for every point."""
        schedule = train_config.section(self.config, "schedule")
        share = jax.jit(lambda step: schedule(step, point.steps))
        return self.config.optimizer.learning_rate * np.asarray(share(np.arange(point.steps)), np.float64)


def trunks_of(config: ConfigDict, cells: Iterable[Cell], lengths: tuple[int, int], corpus_tokens: int) -> list[Trunk]:
    """The trunks of some cells, smallest model first.

    `config` has the knobs that they share (see `scaling.cells.default`), `lengths` are the tokens of a training row
    and of its encoder's (0: none), `corpus_tokens` those of the training split. Raises `UserError` for cells that
    cannot be trained."""
    if config.transforms:
        raise UserError("config.transforms: a sweep compares models that train as a whole; leave the transforms out")
    if config.schedule.type != "WSD":
        raise UserError(
            f"config.schedule.type={config.schedule.type!r} must be WSD: the runs of a size share their steps up to "
            "where the learning rate begins to fall"
        )
    if not 0 < config.schedule.cooldown_fraction < 1:
        raise UserError(
            f"config.schedule.cooldown_fraction={config.schedule.cooldown_fraction} must lie between 0 and 1"
        )
    together: dict[Cell, list[Cell]] = {}
    for cell in cells:
        together.setdefault(dataclasses.replace(cell, tokens=0, budget=None), []).append(cell)
    trunks = [_trunk(config, own, lengths, corpus_tokens) for own in together.values()]
    return sorted(trunks, key=lambda t: (t.size.params, t.cell.batch_size, t.cell.seed, t.cell.learning_rate))


def groups_of(trunks: Sequence[Trunk]) -> list[tuple[Trunk, ...]]:
    """Those that one program trains: of the same shape and batch size, with the same points."""
    groups: dict[Hashable, list[Trunk]] = {}
    for trunk in trunks:
        cell, lengths = trunk.cell, tuple(p.steps for p in trunk.points)
        groups.setdefault((cell.d_model, cell.layers, cell.batch_size, lengths), []).append(trunk)
    return [tuple(group) for group in groups.values()]


def flops_of(points: Sequence[Point]) -> int:
    """Of a trunk as far as the last branch, and of all cool-downs."""
    cooling = sum((p.steps - p.branch) * p.flops // p.steps for p in points)
    return cooling + max((p.branch * p.flops // p.steps for p in points), default=0)


def warnings(trunks: Sequence[Trunk]) -> list[str]:
    """What would bend the fit, a line each."""
    lines = []
    sizes = [t.size.params for t in trunks]
    if max(sizes) > WIDEST_GRID * min(sizes):
        lines.append(
            f"sizes span a factor of {max(sizes) / min(sizes):.0f}: parabolas are biased on so wide a grid; "
            "drop the sizes far from the minimum, or fit with --nearest"
        )
    for trunk in trunks:
        for point in trunk.points:
            budget = point.cell.budget
            where = f"{trunk.name} at {budget or point.flops:.4g}"
            if budget is not None and abs(point.flops / budget - 1) > 0.01:
                lines.append(
                    f"{where} takes {point.steps} steps, {point.flops / budget - 1:+.1%} off the budget: "
                    "smaller batches come nearer"
                )
            if point.epochs > MOST_EPOCHS:
                lines.append(
                    f"{where} reads the corpus {point.epochs:.1f} times, and repeated data counts for less: "
                    "give more text, or drop this size"
                )
            if trunk.config.schedule.warmup > point.branch / 2:
                lines.append(
                    f"{where} warms up for {trunk.config.schedule.warmup} of {point.steps} steps, which "
                    "favours smaller models: lower config.sweep.warmup"
                )
    return lines


def _trunk(config: ConfigDict, cells: Sequence[Cell], lengths: tuple[int, int], corpus_tokens: int) -> Trunk:
    first = cells[0]
    size = size_of(config, (first.d_model, first.layers), lengths)
    step_tokens = first.batch_size * sum(lengths)
    points = []
    for cell in sorted(cells, key=lambda cell: cell.tokens):
        steps = max(1, round(cell.tokens / step_tokens))
        branch, tokens = int(steps * (1 - config.schedule.cooldown_fraction)), steps * step_tokens
        flops = steps * first.batch_size * size.row_flops
        points.append(Point(cell, steps, branch, flops, tokens, tokens / corpus_tokens))
    run = _train_config(config, first)
    run.schedule.warmup = -(-first.warmup // step_tokens)
    run.train.steps = points[-1].steps
    train_config.check(run)
    return Trunk(run.lock(), size, tuple(points))


def _train_config(config: ConfigDict, cell: Cell) -> ConfigDict:
    """The training run of a cell; its length and warm-up are still to be set."""
    run = train_config.default()
    with run.unlocked():
        own = ("optimizer", "schedule", "model")
        run.update({k: v for k, v in config.to_dict().items() if k not in ("sweep", *own)})
        run.optimizer, run.schedule = (ConfigDict(config[name].to_dict()) for name in ("optimizer", "schedule"))
        run.model = model_config(config, (cell.d_model, cell.layers))
        run.data.batch_size = cell.batch_size
        run.optimizer.learning_rate, run.optimizer.weight_decay = cell.learning_rate, cell.weight_decay
        run.schedule.warmup = 0
        if cell.b2 is not None:
            if "b2" not in run.optimizer:
                raise UserError(f"a cell has b2={cell.b2}, which {run.optimizer.type} has not: leave it null")
            run.optimizer.b2 = cell.b2
    run.seed = cell.seed
    return run
