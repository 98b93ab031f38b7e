"""Runs a sweep: trains what its folder lacks, one trunk after another, and records each run as it ends."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lm.core.errors import UserError
from lm.core.formats import KEY, RECORD, SWEEP, format_of
from lm.core.metrics import values
from lm.data.open import Data
from lm.inspect.cost import CONVENTION
from lm.objectives.objective import Objective
from lm.runs.config_json import difference, plain
from lm.runs.upgrade import upgraded_config
from lm.train.config_file import part
from lm.train.data import lengths_of
from lm.train.optim.schedule import ConstantRate
from lm.train.prefetch import DevicePrefetcher, evaluation_batches
from lm.train.record import completed
from lm.train.setup import assemble
from lm.train.state import State

from .laws import Array
from .plan import Cell, Trunk, default, plan, warnings
from .records import append_run

GROWS = ("budgets", "shapes", "seeds")  # knobs that may differ between the sweeps that fill one folder
SYNC = 50  # steps between looks at the loss: each look waits for the device

Record = dict[str, Any]


def sweep(config: ConfigDict, out: str | Path, console: Console | None = None) -> Path:
    """Run the cells of `config` (see `scaling.plan.default`) that `out`/runs.jsonl lacks; returns that file.

    A run that diverges is recorded with loss None. Raises `UserError` for a config that no sweep can run, a
    folder that cannot be written and one that holds a sweep of other knobs or data.
    """
    console = console or Console(stderr=True)
    out = Path(out).expanduser()
    whole = assemble(ConfigDict({**config.to_dict(), "seed": 0}))
    data, objective = whole.data, whole.objective
    trunks = plan(config, lengths_of(whole.batches), data.tokens)
    for trunk in trunks:
        assemble(trunk.config, model=trunk.model, data=data).check_fit()
    _claim(out, config, data)
    runs = out / "runs.jsonl"
    done = {(r["budget"], r["d_model"], r["layers"], r["seed"]) for r in _records(runs)}
    lacking = {trunk: [c for c in trunk.cells if trunk.key(c) not in done] for trunk in trunks}
    lacking = {trunk: cells for trunk, cells in lacking.items() if cells}
    console.print(
        f"{sum(len(t.cells) for t in trunks)} runs, {sum(map(len, lacking.values()))} of them to do: "
        f"{sum(map(_flops, lacking.values())):.3g} FLOPs; {data.tokens:,} training tokens"
    )
    for line in warnings(trunks):
        console.print(f"[yellow]warning:[/] {line}", soft_wrap=True)
    if not lacking:
        return runs
    with _progress(console) as bar:
        task = bar.add_task("sweep", total=sum(map(_flops, lacking.values())), status="")
        planned, held = 0, config.sweep.evaluation_tokens
        for trunk, cells in lacking.items():
            bar.update(task, status=f"{trunk.name}: {trunk.params:,} parameters")
            for record in run_trunk(trunk, cells, data, objective, held, lambda f: bar.advance(task, f)):
                append_run(runs, record)
                left = bar.tasks[task].time_remaining
                console.print(_line(trunk, record) + (f"; {left / 60:.1f} min left" if left else ""), soft_wrap=True)
            planned += _flops(cells)
            bar.update(task, completed=planned)  # a trunk that diverged stopped early
    return runs


def run_trunk(
    trunk: Trunk,
    cells: list[Cell],
    data: Data,
    objective: Objective,
    evaluation_tokens: int = 0,
    tick: Callable[[int], None] = lambda flops: None,
) -> Iterator[Record]:
    """Train a trunk and the cool-downs of `cells`, by ascending budget; the record of each as it ends.

    Every loss is taken on the same `evaluation_tokens` held-out tokens, evenly spread (0: all of them).
    `tick(flops)` is called after each synced chunk of steps.
    """
    config = trunk.config
    # The learning rate comes with each step, so that one compiled program serves the trunk and its cool-downs.
    parts = assemble(config, model=trunk.model, objective=objective, data=data, schedule=ConstantRate(warmup=0))
    batches, held_out, sharding = parts.batches, parts.held_out, parts.sharding
    asked = math.ceil(evaluation_tokens / (config.data.length * config.data.batch_size)) or len(held_out)
    spread = np.linspace(0, len(held_out) - 1, min(asked, len(held_out))).astype(int)
    start = parts.trainer.init(parts.hyper)
    step_fn = parts.trainer.jitted(start)

    def advance(state: State, cell: Cell, rates: Array, first: int, last: int) -> State | None:
        """Steps first ... last - 1 of a cell, which take over `state`; None once the loss is not finite."""
        stream = DevicePrefetcher(batches, sharding, first)
        seen = first
        for step, rate in enumerate(rates[first:last], first + 1):
            hyper = state.hyper | {"learning_rate": jnp.float32(rate)}
            state, measured = step_fn(dataclasses.replace(state, hyper=hyper), next(stream))
            if step % SYNC == 0 or step == last:
                if not math.isfinite(float(measured["objective"].total)):
                    return None
                tick((step - seen) * cell.flops // cell.steps)
                seen = step
        return state

    state: State | None = start
    at, trunk_seconds = 0, 0.0
    for cell in cells:
        began, rates = time.perf_counter(), trunk.learning_rates(cell)
        if state is not None:
            state = advance(state, cell, rates, at, cell.branch)
        at, branched = cell.branch, time.perf_counter()
        trunk_seconds += branched - began
        # A copy, since the steps of the cool-down take over what they are given.
        copy = jax.tree.map(jnp.copy, state)
        cooled = None if copy is None else advance(copy, cell, rates, cell.branch, cell.steps)
        seconds = trunk_seconds + time.perf_counter() - branched
        result = None
        if cooled is not None:
            result = values(parts.evaluator(cooled.params, evaluation_batches(held_out, spread, sharding)))
        yield _record(trunk, cell, result, seconds)


def _record(trunk: Trunk, cell: Cell, result: dict[str, float] | None, seconds: float) -> Record:
    loss = None
    if result is not None and math.isfinite(result["loss"]):
        loss = result["bits_per_byte"] * math.log(2)
    c = trunk.config
    return {
        "params": trunk.params,
        "tokens": cell.tokens,
        "flops": cell.flops,
        "flops_convention": CONVENTION,
        "loss": loss,
        "loss_unit": "nats/byte",
        "budget": cell.budget,
        "seed": c.seed,
        "epochs": round(cell.epochs, 4),
        "family": c.model.family,
        "d_model": c.model.d_model,
        "layers": c.model.layers,
        "heads": c.model.heads,
        "length": c.data.length,
        "batch_size": c.data.batch_size,
        "steps": cell.steps,
        "learning_rate": c.optimizer.learning_rate,
        "warmup": c.schedule.warmup,
        "seconds": round(seconds, 2),  # the trunk's share included
    }


def _line(trunk: Trunk, record: Record) -> str:
    where = f"{trunk.name} at {record['budget']:.4g}"
    if record["loss"] is None:
        return f"[yellow]warning:[/] {where} diverged: recorded without loss; lower config.sweep.lr"
    return (
        f"{where}: loss {record['loss']:.4f} {record['loss_unit']}, {record['tokens']:,} tokens "
        f"({record['epochs']:.2f} epochs), {record['seconds']:.0f} s"
    )


def _flops(cells: list[Cell]) -> int:
    """Of the trunk as far as the last branch, and of all cool-downs."""
    return sum((c.steps - c.branch) * c.flops // c.steps for c in cells) + (
        cells[-1].branch * cells[-1].flops // cells[-1].steps
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]sweep"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,
        speed_estimate_period=3600,  # sizes differ in speed: the time left is judged by all so far
    )


def _claim(out: Path, config: ConfigDict, data: Data) -> None:
    """Write `out`/config.json, or check that the sweep it tells of is this one but for the grid."""
    path = out / "config.json"
    ours = {
        KEY: SWEEP.number,
        "config": config.to_dict(),
        "data": {"train": data.digest, "validation": [cache.digest for cache in data.validation]},
    }
    ours = json.loads(json.dumps(ours))
    try:
        out.mkdir(parents=True, exist_ok=True)
        theirs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else ours
        theirs = theirs | {"config": upgraded_config(theirs["config"], format_of(theirs, SWEEP, path))}
        if (where := difference(_identity(ours), _identity(theirs), "")) is not None:
            raise UserError(
                f"{out} holds a sweep with {where[0].lstrip('.')}={where[2]!r}, not {where[1]!r}: its runs cannot be "
                "compared with these; choose another --out, or give the same config"
            )
        path.write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")
    except OSError as e:
        raise UserError(f"--out={out}: cannot write there ({e.strerror}); name another folder") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path} is not JSON ({e}); choose another --out, or delete that file") from e


def _identity(saved: Record) -> Record:
    """What runs must share to stand in one fit: not the grid, nor where and how they were computed. Knobs that came
    after the sweep was saved have their defaults."""
    config = {k: v for k, v in completed(saved["config"], plain(default())).items() if k not in ("mesh", "parallel")}
    config["model"] = plain(part(config["model"], "config.model"))
    config["sweep"] = {k: v for k, v in config["sweep"].items() if k not in GROWS}
    config["data"] = {k: v for k, v in config["data"].items() if k != "cache"}
    config["data"]["tokenizer"] = config["data"]["tokenizer"] or "byte"
    config["train"] = {k: v for k, v in config["train"].items() if k not in ("remat", "unroll")}
    return {"config": config, "data": saved["data"]}


def _records(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as e:
            raise UserError(
                f"{path} line {number} is not JSON ({e.msg}); remove the line, its run is done again"
            ) from e
        format_of(record, RECORD, f"{path} line {number}")
        yield record
