"""Cells: which runs a sweep makes. They come from a grid of knobs (`config.sweep`), or from a plan, a JSON file that
`python -m scaling.plan` writes or a person does.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError, nearest
from lm.core.formats import KEY, SWEEP
from lm.inspect.cost import active_parameters, training_flops
from lm.model.transformer import Model
from lm.runs.config_json import plain
from lm.train import config as train_config
from lm.train.config_file import read_config
from lm.train.optim.schedule import WSD
from lm.zoo.registry import FAMILIES, build

FF_RATIO = 4  # d_ff / d_model, where a family asks for d_ff and the config leaves it open
row_flops = functools.cache(training_flops)  # traces the model: once for all cells of a shape


def default() -> ConfigDict:
    """Every knob of a sweep: those of a training run (`lm.train.config.default`), except what differs from
    run to run, and `config.sweep`. The caller gives `config.model`: a family and the knobs all sizes share."""
    config = train_config.default()
    with config.unlocked():
        del config.seed, config.log, config.train.steps
        config.schedule = train_config.as_config(WSD(final_lr_ratio=0.0))
        del config.optimizer.learning_rate, config.schedule.warmup  # which each cell has for itself
        config.sweep = ConfigDict(
            {
                "budgets": (1e12, 2e12),  # training FLOPs of a run
                "shapes": ((16, 2), (32, 2), (48, 3)),  # (d_model, layers); heads = d_model / model.head_dim
                "head_dim": 0,  # width of a head, of families that have no such knob
                "seeds": (0,),  # of initial values and data order
                "lr": 0.128,  # learning rate = lr * d_model ** lr_power
                "lr_power": -1.0,
                "lr_factors": (1.0,),  # times that rate, to be compared
                "batch_sizes": (),  # rows of a step, to be compared; (): config.data.batch_size
                "warmup": 1.0,  # training tokens per parameter, so that it suits every size (2406.19146)
                "ratios": (),  # (least, most) training tokens per parameter; cells beyond are left out; (): none is
                "evaluation_tokens": 262_144,  # held-out, the same for every run; 0: the whole split
            }
        )
    config.optimizer.b2 = 0.99  # averages over more steps than usual, since batches are small
    return config.lock()


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. Cells that differ in `tokens` and `budget` alone share a trunk (`scaling.trunks`)."""

    d_model: int
    layers: int
    tokens: int  # of training, rounded to whole steps
    budget: float | None  # FLOPs that it was made for; None: for none
    learning_rate: float  # the peak
    batch_size: int  # rows of a step
    warmup: int  # tokens
    b2: float | None  # None: the optimizer has no such knob
    weight_decay: float
    seed: int = 0  # of initial values and data order

    @property
    def id(self) -> str:
        """Tells a cell from every other one, whatever the order and the number of those."""
        return hashlib.blake2b(json.dumps(dataclasses.asdict(self)).encode(), digest_size=6).hexdigest()


class Plan(NamedTuple):
    """What to run: the knobs that all cells share (`default`), the cells, and what is expected of them."""

    config: ConfigDict
    cells: tuple[Cell, ...]
    expected: Mapping[str, Any] = {}

    @property
    def training(self) -> ConfigDict:
        """A training run's config as far as all cells share it: enough for its data and its objective."""
        return ConfigDict({**self.config.to_dict(), "seed": 0})


def write_plan(path: str | Path, plan: Plan) -> None:
    """As the config.json of a sweep, with the cells."""
    saved = {
        KEY: SWEEP.number,
        "config": plain(plan.config),
        "cells": [dataclasses.asdict(cell) for cell in plan.cells],
        "expected": dict(plan.expected),
    }
    Path(path).write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


def read_plan(path: str | Path) -> Plan:
    """Raises `UserError` for a file that is missing or no plan, and for a cell that lacks a value or has one too
    many."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"--plan={path}: no such file; python -m scaling.plan writes one")
    config = read_config(path, default)  # which knows older files of this kind
    saved = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(saved.get("cells"), list) or not saved["cells"]:
        raise UserError(f"--plan={path} has no cells, a list of what to run; python -m scaling.plan writes it")
    cells = tuple(_cell(cell, f"{path}: cell {i}") for i, cell in enumerate(saved["cells"], 1))
    return Plan(config, cells, saved.get("expected", {}))


def _cell(given: Any, where: str) -> Cell:
    known = {f.name: f for f in dataclasses.fields(Cell)}
    if not isinstance(given, dict):
        raise UserError(f"{where} is {given!r}; each is an object with {', '.join(known)}")
    for name in given:
        if name not in known:
            raise UserError(f"{where}: {name!r} is no value of a cell{nearest(name, known)}")
    for name, field in known.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise UserError(f"{where} lacks {name!r}")
    cell = Cell(**given)
    for name in ("d_model", "layers", "tokens", "batch_size"):
        if type(value := getattr(cell, name)) is not int or value < 1:
            raise UserError(f"{where}: {name} is {value!r}, not a whole number from 1 on")
    for name in ("warmup", "seed"):
        if type(value := getattr(cell, name)) is not int or value < 0:
            raise UserError(f"{where}: {name} is {value!r}, not a whole number from 0 on")
    if not cell.learning_rate > 0:
        raise UserError(f"{where}: learning_rate is {cell.learning_rate!r}; it must be positive")
    return cell


class Size(NamedTuple):
    """A shape as a model."""

    model: Model
    params: int  # that a token meets
    row_flops: int  # of training on one row


def size_of(config: ConfigDict, shape: Sequence[int], lengths: tuple[int, int]) -> Size:
    """The model of (d_model, layers). `lengths`: tokens of a training row and of its encoder's (0: none).
    Raises `UserError` for a shape that no model has."""
    knobs = model_config(config, shape)
    model = train_config.section(config, "parametrization").model(build(knobs), knobs.to_dict())
    return Size(model, active_parameters(model), row_flops(model, *lengths))


def model_config(config: ConfigDict, shape: Any) -> ConfigDict:
    """`config.model` with what (d_model, layers) says."""
    if not (isinstance(shape, tuple | list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
        raise UserError(f"config.sweep.shapes holds {shape!r}; each is (d_model, layers), such as (32, 2)")
    d_model, layers = shape
    head_dim = head_dim_of(config)
    if d_model % head_dim or d_model < 1:
        raise UserError(
            f"config.sweep.shapes holds d_model={d_model}, not a multiple of config.model.head_dim={head_dim}: "
            "heads = d_model / head_dim must be whole"
        )
    for name in ("size", "layers", "d_model", "heads"):
        if config.model.get(name) is not None:
            raise UserError(f"config.model.{name} comes from config.sweep.shapes: leave it unset")
    sized = {"d_model": d_model, "layers": layers, "heads": d_model // head_dim}
    if config.model.family in FAMILIES and config.model.get("d_ff") is None:
        knobs = inspect.signature(FAMILIES[config.model.family].make).parameters
        if "d_ff" in knobs and knobs["d_ff"].default is inspect.Parameter.empty:
            sized["d_ff"] = FF_RATIO * d_model
    return ConfigDict(config.model.to_dict() | sized)


def head_dim_of(config: ConfigDict) -> int:
    """Width of a head of `config`'s models. Raises `UserError` where it is open, and for a model of one shape."""
    if config.model.get("family") is None:
        raise UserError("config.model is a whole model; a sweep makes shapes of a family: set config.model.family")
    head_dim = config.model.get("head_dim") or config.sweep.head_dim
    if not head_dim:
        name = "model" if "head_dim" in config.model else "sweep"
        raise UserError(f"config.{name}.head_dim is not set: heads = d_model / head_dim of each size")
    return int(head_dim)


def grid(config: ConfigDict, lengths: tuple[int, int]) -> tuple[Cell, ...]:
    """The cells of `config.sweep`: every budget, shape, learning rate, batch size and seed with every other.

    Raises `UserError` for an empty or impossible list and a budget of less than a step."""
    s = config.sweep
    budgets = _distinct(s.budgets, "budgets", "1e12,2e12")
    shapes = _distinct(s.shapes, "shapes", "((16, 2), (32, 2), (48, 3))")
    seeds = _distinct(s.seeds, "seeds", "0,1")
    factors = _distinct(s.lr_factors, "lr_factors", "0.5,1,2")
    batch_sizes = _distinct(s.batch_sizes or (config.data.batch_size,), "batch_sizes", "4,8")
    if s.ratios and not (len(s.ratios) == 2 and 0 <= s.ratios[0] < s.ratios[1]):
        raise UserError(f"config.sweep.ratios={s.ratios} must be the least and the most, such as 1,2000; or ()")
    for name, values in (("budgets", budgets), ("lr_factors", factors), ("seeds", seeds)):
        if wrong := [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]:
            raise UserError(f"config.sweep.{name} holds {wrong[0]!r}, which is no number")
    for budget in budgets:
        if not 0 < budget < math.inf:
            raise UserError(f"config.sweep.budgets holds {budget}; give positive FLOPs, such as 1e12")
    for rows in batch_sizes:
        if type(rows) is not int or rows < 1:
            raise UserError(f"config.sweep.batch_sizes holds {rows!r}; give whole numbers of rows, such as 4,8")
    if not all(s.lr * factor > 0 for factor in factors) or s.warmup < 0 or s.evaluation_tokens < 0:
        raise UserError("config.sweep.lr and lr_factors must be positive, warmup and evaluation_tokens not negative")
    sizes = [(shape, size_of(config, shape, lengths)) for shape in shapes]
    if len({size.params for _, size in sizes}) < len(shapes):
        raise UserError("two of config.sweep.shapes have the same number of parameters; a parabola needs distinct ones")
    cells = []
    for (shape, size), rows, factor, seed, budget in itertools.product(
        sizes, batch_sizes, factors, seeds, sorted(budgets)
    ):
        steps = round(budget / (rows * size.row_flops))
        if steps < 1:
            raise UserError(
                f"config.sweep.budgets holds {budget:.4g} FLOPs, less than one step of d_model={shape[0]}, "
                f"layers={shape[1]} ({rows * size.row_flops:.3g}): raise it, or lower config.data.batch_size"
            )
        tokens = steps * rows * sum(lengths)
        if s.ratios and not s.ratios[0] <= tokens / size.params <= s.ratios[1]:
            continue
        cells.append(
            Cell(
                d_model=shape[0],
                layers=shape[1],
                tokens=tokens,
                budget=float(budget),
                learning_rate=factor * s.lr * shape[0] ** s.lr_power,
                batch_size=rows,
                warmup=math.ceil(s.warmup * size.params),
                b2=config.optimizer.get("b2"),
                weight_decay=config.optimizer.weight_decay,
                seed=seed,
            )
        )
    if not cells:
        raise UserError(f"config.sweep.ratios={s.ratios} leaves no cell of the grid: widen it, or change the budgets")
    return tuple(cells)


def _distinct(values: Any, name: str, example: str) -> list[Any]:
    values = list(values) if isinstance(values, tuple | list) else [values]
    if not values:
        raise UserError(f"config.sweep.{name} is empty; give for example {example}")
    if len(set(values)) < len(values):
        raise UserError(f"config.sweep.{name}={tuple(values)} names the same one twice; drop the repetition")
    return values
