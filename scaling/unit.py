"""A unit of a sweep: trunks that one process trains."""

import json
import time
from pathlib import Path

from lm.core.errors import UserError
from lm.train.data import lengths_of
from lm.train.setup import assemble

from .cells import read_plan
from .folder import PLAN, PROGRESS, RUNS, UNITS, done, replace
from .records import append_run
from .swept import record_of
from .training import train_group
from .trunks import trunks_of

TOLD = 1.0  # seconds between notes of progress


def run_unit(out: Path, unit: int) -> None:
    """Train what a unit lacks and append its records to `out`/runs.jsonl. Raises `UserError` for one that there is
    not."""
    units = json.loads((out / UNITS).read_text(encoding="utf-8"))
    if unit >= len(units):
        raise UserError(f"--unit={unit}: {out / UNITS} has {len(units)} units, from 0 on")
    plan, wanted = read_plan(out / PLAN), set(units[unit])
    whole = assemble(plan.training)
    data = whole.data
    cells = [cell for cell in plan.cells if cell.id in wanted]
    group = trunks_of(plan.config, cells, lengths_of(whole.batches), data.tokens)
    runs, told, advanced = out / RUNS, 0.0, 0

    def tick(flops: int) -> None:
        nonlocal told, advanced
        advanced += flops
        if time.monotonic() > told + TOLD:
            told = time.monotonic()
            replace(out / PROGRESS / f"{unit}.json", json.dumps({"flops": advanced}))

    lacking = {trunk: [p for p in trunk.points if p.cell.id not in done(runs)] for trunk in group}
    lacking = {trunk: points for trunk, points in lacking.items() if points}
    if lacking:
        for outcome in train_group(
            list(lacking), lacking, data, whole.objective, plan.config.sweep.evaluation_tokens, tick
        ):
            append_run(runs, record_of(outcome, data), once="cell")
