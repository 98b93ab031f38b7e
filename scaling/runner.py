"""Runs a sweep: has a backend train what its folder lacks, and starts again what fails."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from lm.data.open import Data
from lm.runs import lock
from lm.train.data import lengths_of
from lm.train.setup import assemble

from .backends.backend import Backend, log_of
from .cells import Plan, write_plan
from .folder import LOGS, PLAN, PROGRESS, RUNS, UNITS, claim, done, records, replace
from .live import Unit, View
from .records import append_run
from .swept import failed, line_of
from .training import together
from .trunks import Trunk, flops_of, groups_of, trunks_of, warnings

POLL = 0.5  # seconds between looks at what runs


def sweep(
    plan: Plan,
    out: str | Path,
    backend: Callable[[Path], Backend],
    platform: str = "cpu",
    *,
    retries: int = 1,
    console: Console | None = None,
) -> Path:
    """Run the cells of a plan that `out`/runs.jsonl lacks; returns that file.

    `backend`: makes one for a folder, on machines of JAX's `platform`. A unit that ends without its records is started
    again, `retries` times, and then recorded as failed; a later call tries those anew. A run that diverges is a result.

    Raises `UserError` for a config that no sweep can run, a folder that cannot be written and one that holds a sweep of
    other knobs or data.
    """
    console = console or Console(stderr=True)
    out = Path(out).expanduser()
    whole = assemble(plan.training)
    data = whole.data
    trunks = trunks_of(plan.config, plan.cells, lengths_of(whole.batches), data.tokens)
    for trunk in trunks:
        assemble(trunk.config, model=trunk.size.model, data=data).check_fit()
    claim(out, plan.config, data)
    with lock.alone(out):
        _run(plan, out, backend, _groups(trunks, platform), data, retries, console)
    return out / RUNS


def _run(
    plan: Plan,
    out: Path,
    backend: Callable[[Path], Backend],
    groups: Sequence[Sequence[Trunk]],
    data: Data,
    retries: int,
    console: Console,
) -> None:
    have = done(out / RUNS)
    trunks = [trunk for group in groups for trunk in group]
    units = {i: made for i, group in enumerate(groups) if (made := _unit(group, have)).lacking}
    console.print(
        f"{sum(len(t.points) for t in trunks)} runs, {sum(u.lacking for u in units.values())} of them to do: "
        f"{sum(u.flops for u in units.values()):.3g} FLOPs; {data.tokens:,} training tokens"
    )
    for line in warnings(trunks):
        console.print(f"[yellow]warning:[/] {line}", soft_wrap=True)
    if not units:
        return
    for name in (PROGRESS, LOGS):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir()
    write_plan(out / PLAN, plan)
    replace(out / UNITS, json.dumps([[p.cell.id for t in group for p in t.points] for group in groups]) + "\n")
    seen, attempts = len(records(out / RUNS)), Counter[int]()
    ended: dict[int, str] = {}  # what became of units
    where = backend(out)
    try:
        # The longest first, so that none is left alone at the end.
        where.start(sorted(units, key=lambda unit: -units[unit].flops))
        with View(out, units, console) as view:
            while len(ended) < len(units):
                time.sleep(POLL)
                running = where.running()
                found = records(out / RUNS)
                for record in found[seen:]:
                    view.tell(line_of(record))
                seen, have = len(found), done(out / RUNS)
                for unit in units.keys() - running - ended.keys():
                    if have.issuperset(units[unit].cells):
                        ended[unit] = "done"
                    elif attempts[unit] < retries:
                        attempts[unit] += 1
                        view.tell(f"{units[unit].name}: {_reason(out, unit)}; tried again")
                        where.start([unit])
                    else:
                        ended[unit] = "failed"
                        _record_failed(out, groups[unit], have, data, _reason(out, unit))
                view.show(running, ended, attempts)
            for record in records(out / RUNS)[seen:]:
                view.tell(line_of(record))
    finally:
        where.stop()


def _groups(trunks: Sequence[Trunk], platform: str) -> list[tuple[Trunk, ...]]:
    """Trunks that are trained together, or each for itself where that is faster."""
    groups: list[tuple[Trunk, ...]] = []
    for group in groups_of(trunks):
        groups += [group] if together(group[0], platform) else [(trunk,) for trunk in group]
    return groups


def _unit(group: Sequence[Trunk], have: set[str]) -> Unit:
    lacking = [[p for p in trunk.points if p.cell.id not in have] for trunk in group]
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return Unit(
        group[0].name + more,
        tuple(p.cell.id for trunk in group for p in trunk.points),
        sum(map(len, lacking)),
        sum(map(flops_of, lacking)),
    )


def _record_failed(out: Path, group: Sequence[Trunk], have: set[str], data: Data, reason: str) -> None:
    for trunk in group:
        for point in trunk.points:
            if point.cell.id not in have:
                append_run(out / RUNS, failed(trunk, point, data, reason))


def _reason(out: Path, unit: int) -> str:
    """The last line of a unit's log."""
    log = log_of(out, unit)
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it ended without a word, as a process does that the system kills"
