"""From compute budgets and model shapes to training runs: which steps, learning rate and data each one takes.

A sweep is a grid of cells (budget x shape x seed). Its learning rate is constant and falls only in a last share
of the steps (warm-up, stable, decay; Haegele et al. 2024, arXiv 2405.18392), so the cells of one shape and seed
share a trunk: the run of the largest budget, off which each smaller budget branches where its cool-down starts.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.core.param import count
from lm.inspect.cost import training_flops
from lm.model.transformer import Model
from lm.train import config as train_config
from lm.train.optim.schedule import WSD
from lm.zoo.registry import build

from .laws import Array

row_flops = functools.cache(training_flops)  # traces the model: once for all seeds

MOST_EPOCHS = 4  # up to here repeated data is nearly as good as new (Muennighoff et al. 2023, arXiv 2305.16264)
WIDEST_GRID = 16  # largest / smallest model: a parabola in log N is biased on a wide grid (2603.22339)


def default() -> ConfigDict:
    """Every knob of a sweep: those of a training run (`lm.train.config.default`), except what differs from
    run to run, and `config.sweep`. The caller gives `config.model`: a family and the knobs all sizes share."""
    config = train_config.default()
    with config.unlocked():
        del config.seed, config.log, config.train.steps
        config.schedule = train_config.as_config(WSD(final_lr_ratio=0.0))
        del config.optimizer.learning_rate, config.schedule.warmup  # which the plan sets for each run
        config.sweep = ConfigDict(
            {
                "budgets": (1e12, 2e12),  # training FLOPs of a run
                "shapes": ((16, 2), (32, 2), (48, 3)),  # (d_model, layers); heads = d_model / model.head_dim
                "seeds": (0,),  # of initial values and data order
                "lr": 0.128,  # learning rate = lr * d_model ** lr_power
                "lr_power": -1.0,
                "warmup": 1.0,  # training tokens per parameter, so that it suits every size (2406.19146)
                "evaluation_tokens": 262_144,  # held-out, the same for every run; 0: the whole split
            }
        )
    config.optimizer.b2 = 0.99  # averages over more steps than usual, since batches are small
    return config.lock()


@dataclass(frozen=True)
class Cell:
    """One point of the isoFLOP grid: a run of `steps`, of which those from `branch` on are its cool-down."""

    budget: float
    steps: int
    branch: int
    flops: int
    tokens: int
    epochs: float


@dataclass(frozen=True, eq=False)
class Trunk:
    """The cells of one shape and seed, by budget. `config` is the training run (see `lm.train.config`) that
    its largest cell equals."""

    config: ConfigDict
    model: Model
    shape: tuple[int, int]
    params: int
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        seed = f", seed {self.config.seed}" if self.config.seed else ""
        return f"d{self.shape[0]} x {self.shape[1]}{seed}"

    def key(self, cell: Cell) -> tuple[float, ...]:
        """Identifies a cell among the records of a sweep."""
        return cell.budget, *self.shape, self.config.seed

    def learning_rates(self, cell: Cell) -> Array:
        """Of each step of a cell, [steps]; before `cell.branch` the same for every cell."""
        schedule = train_config.section(self.config, "schedule")
        share = jax.jit(lambda step: schedule(step, cell.steps))
        return self.config.optimizer.learning_rate * np.asarray(share(np.arange(cell.steps)), np.float64)


def plan(config: ConfigDict, lengths: tuple[int, int], corpus_tokens: int) -> list[Trunk]:
    """The trunks of `config` (see `default`), smallest model first.

    `lengths` are the tokens of a training row and of its encoder's (0: none), `corpus_tokens` those of the
    training split. Raises `UserError` for an empty or impossible list and a budget of less than a step.
    """
    s = config.sweep
    if config.transforms:
        raise UserError("config.transforms: a sweep compares models that train as a whole; leave the transforms out")
    budgets = _distinct(s.budgets, "budgets", "1e12,2e12")
    shapes = _distinct(s.shapes, "shapes", "((16, 2), (32, 2), (48, 3))")
    seeds = _distinct(s.seeds, "seeds", "0,1")
    for budget in budgets:
        if not 0 < budget < math.inf:
            raise UserError(f"config.sweep.budgets holds {budget}; give positive FLOPs, such as 1e12")
    if len(budgets) < 2:
        raise UserError(f"config.sweep.budgets={s.budgets} is one budget; a power law needs two or more")
    if len(shapes) < 3:
        raise UserError(f"config.sweep.shapes={s.shapes} has fewer than three sizes, which a parabola needs")
    if not (s.lr > 0 and s.warmup >= 0 and s.evaluation_tokens >= 0):
        raise UserError("config.sweep.lr must be positive, warmup and evaluation_tokens not negative")
    if config.schedule.type != "WSD":
        raise UserError(
            f"config.schedule.type={config.schedule.type!r} must be WSD: the runs of a size share their steps up to "
            "where the learning rate begins to fall"
        )
    if not 0 < config.schedule.cooldown_fraction < 1:
        raise UserError(
            f"config.schedule.cooldown_fraction={config.schedule.cooldown_fraction} must lie between 0 and 1"
        )
    trunks = [
        _trunk(config, shape, seed, budgets, lengths, corpus_tokens) for shape, seed in itertools.product(shapes, seeds)
    ]
    sizes = {t.params: t.shape for t in trunks}
    if len(sizes) < len(shapes):
        raise UserError("two of config.sweep.shapes have the same number of parameters; a parabola needs distinct ones")
    return sorted(trunks, key=lambda t: (t.params, t.config.seed))


def warnings(trunks: list[Trunk]) -> list[str]:
    """What would bend the fit, a line each."""
    lines = []
    sizes = [t.params for t in trunks]
    if max(sizes) > WIDEST_GRID * min(sizes):
        lines.append(
            f"sizes span a factor of {max(sizes) / min(sizes):.0f}: parabolas are biased on so wide a grid; "
            "drop the sizes far from the minimum, or fit with --nearest"
        )
    for trunk in trunks:
        for cell in trunk.cells:
            where = f"{trunk.name} at {cell.budget:.4g}"
            if abs(cell.flops / cell.budget - 1) > 0.01:
                lines.append(
                    f"{where} takes {cell.steps} steps, {cell.flops / cell.budget - 1:+.1%} off the budget: "
                    "smaller batches come nearer"
                )
            if cell.epochs > MOST_EPOCHS:
                lines.append(
                    f"{where} reads the corpus {cell.epochs:.1f} times, and repeated data counts for less: "
                    "give more text, or drop this size"
                )
            if trunk.config.schedule.warmup > cell.branch / 2:
                lines.append(
                    f"{where} warms up for {trunk.config.schedule.warmup} of {cell.steps} steps, which "
                    "favours smaller models: lower config.sweep.warmup"
                )
    return lines


def _distinct(values: Any, name: str, example: str) -> list[Any]:
    values = list(values) if isinstance(values, tuple | list) else [values]
    if not values:
        raise UserError(f"config.sweep.{name} is empty; give for example {example}")
    if len(set(values)) < len(values):
        raise UserError(f"config.sweep.{name}={tuple(values)} names the same one twice; drop the repetition")
    return values


def _trunk(
    config: ConfigDict,
    shape: Any,
    seed: int,
    budgets: list[float],
    lengths: tuple[int, int],
    corpus_tokens: int,
) -> Trunk:
    run = _train_config(config, shape, seed)
    model, rows = build(run.model), run.data.batch_size
    params, step_flops = count(model.spec()), rows * row_flops(model, *lengths)
    step_tokens = rows * sum(lengths)
    run.schedule.warmup = math.ceil(config.sweep.warmup * params / step_tokens)
    cells = []
    for budget in sorted(budgets):
        steps = round(budget / step_flops)
        if steps < 1:
            raise UserError(
                f"config.sweep.budgets holds {budget:.4g} FLOPs, less than one step of d_model={shape[0]}, "
                f"layers={shape[1]} ({step_flops:.3g}): raise it, or lower config.data.batch_size"
            )
        branch, tokens = int(steps * (1 - config.schedule.cooldown_fraction)), steps * step_tokens
        cells.append(Cell(float(budget), steps, branch, steps * step_flops, tokens, tokens / corpus_tokens))
    run.train.steps = cells[-1].steps
    train_config.check(run)
    return Trunk(run.lock(), model, tuple(shape), params, tuple(cells))


def _train_config(config: ConfigDict, shape: Any, seed: int) -> ConfigDict:
    """The training run of one shape and seed; its length and warm-up are still to be set."""
    if not (isinstance(shape, tuple | list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
        raise UserError(f"config.sweep.shapes holds {shape!r}; each is (d_model, layers), such as (32, 2)")
    d_model, layers = shape
    head_dim = config.model.get("head_dim")
    if not head_dim or d_model % head_dim or d_model < 1:
        raise UserError(
            f"config.sweep.shapes holds d_model={d_model}, not a multiple of config.model.head_dim={head_dim}: "
            "heads = d_model / head_dim must be whole"
        )
    for name in ("layers", "d_model", "heads"):
        if config.model.get(name) is not None:
            raise UserError(f"config.model.{name} comes from config.sweep.shapes: leave it unset")
    run = train_config.default()
    with run.unlocked():
        chosen = ("optimizer", "schedule")
        run.update({k: v for k, v in config.to_dict().items() if k not in ("sweep", *chosen)})
        run.optimizer, run.schedule = (ConfigDict(config[name].to_dict()) for name in chosen)
        run.optimizer.learning_rate = config.sweep.lr * d_model**config.sweep.lr_power
        run.schedule.warmup = 0  # until the number of parameters is known
        run.model.update({"d_model": d_model, "layers": layers, "heads": d_model // head_dim})
    run.seed = seed
    return run
