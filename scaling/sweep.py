"""Train models of several sizes at equal compute, and find the size of least loss at each budget (isoFLOP
profiles).

    python -m scaling.sweep --out=runs/sweep             # 2 budgets x 3 sizes: five minutes on two CPU cores
    python -m scaling.sweep --out=runs/wide --config.sweep.budgets=1e12,2e12,4e12
        --config.sweep.shapes="((16,2),(32,2),(48,3),(64,4))"
    python -m scaling.sweep --out=runs/mine --config.data.source=corpus/ --config.data.pattern="*.md"
    python -m scaling.sweep --out=runs/plan --plan=plan.json     # cells of python -m scaling.plan

A budget is the training FLOPs of one run: with it a small model reads more text than a large one. The runs of
one size share a trunk at constant learning rate, off which each budget's cool-down branches. For the knobs see
experiments/sweep.py (the default of --config), scaling/cells.py and lm/train/config.py.

--out gets runs.jsonl (one record a run: params, tokens, flops, loss ...), isoflop.png and config.json. The same
command again runs only what is missing, so a stopped or killed sweep goes on, and one with more budgets, shapes,
seeds, learning rates or batch sizes grows. Of runs that differ in rate and batch alone the fit takes the best.

--backend says where: local processes, each on cores of its own; ray, a cluster of Ray (--address); slurm, one job
array. All machines must share --out. A unit of work is tried --retries times more, and then recorded as failed.
--tuned=RUNS takes lr, lr_power and the batch size from the records of an earlier sweep that compared them.

Is the result good? Each budget's star must lie well between its sizes (else add sizes on that side), and a second
seed (--config.sweep.seeds=0,1) should hardly move it.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError
from lm.core.startup import has_plugins, has_tpu

if TYPE_CHECKING:
    from .backends.backend import Backend
    from .cells import Plan

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "sweep.py"

CONFIG = cli.ConfigFlag("Sweep file, config.json of a sweep, or its folder; experiments/sweep.py if not given.")
OUT = flags.DEFINE_string("out", None, "Folder of the sweep, made if absent: records, plot, config.")
PLAN = flags.DEFINE_string("plan", None, "File of cells to run, in place of a config.")
TUNED = flags.DEFINE_string("tuned", None, "Records from which the learning rate and the batch size are taken.")
BACKEND = flags.DEFINE_enum("backend", "local", ["local", "ray", "slurm"], "Where the runs are made.")
WORKERS = flags.DEFINE_integer("workers", 0, "Local processes; 0: one for each CPU core.", lower_bound=0)
RETRIES = flags.DEFINE_integer("retries", 1, "How often what fails is started again.", lower_bound=0)
ADDRESS = flags.DEFINE_string("address", "auto", "Of the Ray cluster.")
CPUS = flags.DEFINE_integer("cpus", 1, "CPU cores of a unit, with ray and slurm.", lower_bound=1)
GPUS = flags.DEFINE_integer("gpus", 0, "GPUs of a unit, with ray.", lower_bound=0)
PLATFORM = flags.DEFINE_enum("platform", None, ["cpu", "gpu", "tpu"], "Of the machines; by default this one's.")
SLURM = flags.DEFINE_multi_string("slurm", [], "An option of sbatch, as --slurm=--time=1:00:00; may be repeated.")
PRINT = flags.DEFINE_boolean("print_config", False, "Show every knob with its comment, and exit.")

USAGE = "--out=DIR [--config=FILE | --plan=FILE] [--config.a.b=VALUE ...]"


def main(argv: list[str]) -> None:
    if not OUT.value and not PRINT.value:  # an empty one would be this folder
        raise UserError(cli.lacking("out", usage=USAGE))
    if PLAN.value and (CONFIG.file or CONFIG.knobs or TUNED.value):
        raise UserError("--plan has a config of its own: leave --config and --tuned out, or change the plan's file")
    import jax  # not for --help
    from rich.console import Console

    from .cells import read_plan
    from .runner import sweep

    platform = PLATFORM.value or _platform()
    jax.config.update("jax_platforms", "cpu")  # of this process alone: what accelerators there are belong to the units
    plan = read_plan(PLAN.value) if PLAN.value else _of_config()
    if plan is None:
        return
    try:
        backend = partial(_backend, platform=platform)
        runs = sweep(plan, str(OUT.value), backend, platform, retries=RETRIES.value, console=Console(stderr=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the runs that are missing", file=sys.stderr)
        sys.exit(130)
    fit(runs)


def _of_config() -> "Plan | None":
    """The grid of a config, or None where it was only to be shown."""
    from lm.train.config_file import read_config
    from lm.train.data import lengths_of
    from lm.train.override import override
    from lm.train.setup import assemble
    from lm.train.show_config import shown, size_notes

    from .cells import Plan, default, grid
    from .tuned import tuned

    config = read_config(CONFIG.file or DEFAULT, default)
    knobs = (tuned(Path(TUNED.value)) if TUNED.value else ()) + CONFIG.knobs
    notes = override(config, knobs)
    if PRINT.value:
        print(*(f"# {line}" for line in notes), shown(config, default), sep="\n")
        return None
    for line in notes + size_notes(config):
        print(line, file=sys.stderr)
    plan = Plan(config, ())
    return plan._replace(cells=grid(config, lengths_of(assemble(plan.training).batches)))


def _platform() -> str:
    """JAX's of this machine, found by another process: the one that asks keeps a TPU from all others."""
    if not (has_tpu() or has_plugins()):
        return "cpu"
    asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-1]


def _backend(out: Path, platform: str) -> "Backend":
    if BACKEND.value == "ray":
        from .backends.ray import Ray

        return Ray(out, ADDRESS.value, CPUS.value, GPUS.value)
    if BACKEND.value == "slurm":
        from .backends.slurm import Slurm

        return Slurm(out, CPUS.value, SLURM.value)
    from .backends.local import Local

    return Local(out, WORKERS.value, platform)


def fit(runs: Path) -> None:
    """Approach 2 over the best runs of each budget and size: prints its report and draws isoflop.png beside the
    records."""
    import numpy as np

    from . import approach2, plots, report
    from .records import read_runs
    from .tuning import lowest

    columns = read_runs(runs, where=["loss"])
    same = [name for name in ("budget", "params", "seed") if name in columns]
    columns = lowest(columns, same)
    budgets, sizes = (columns[key] for key in ("budget", "params"))
    profiles = [budget for budget in np.unique(budgets) if len(np.unique(sizes[budgets == budget])) >= 3]
    if len(profiles) < 2:
        print(f"\nwrote {runs}; no isoFLOP fit: {len(profiles)} budgets have the three sizes that it needs, not two")
        return
    kept = np.isin(budgets, profiles)
    try:
        fitted = approach2.fit(*(columns[key][kept] for key in ("params", "tokens", "loss", "budget")))
    except UserError as e:  # the runs are made, and stand
        print(f"\nwrote {runs}; no isoFLOP fit: {e}")
        return
    resampled = approach2.bootstrap(fitted)
    largest = float(max(profiles))
    found = report.isoflop(fitted, resampled, [largest, 10 * largest], level=95, source=str(runs))
    print(report.text(found))
    plot = runs.with_name("isoflop.png")
    unit = str(columns["loss_unit"][0])
    title = f"{runs.parent.name}: isoFLOP profiles"
    plots.save(plots.isoflop(fitted, resampled, title=title, unit=unit, extrapolate=[largest]), plot)
    print(f"\nwrote {runs} and {plot}")


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
