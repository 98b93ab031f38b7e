"""How much of a result is the order of its data? One model, one text, read once: in several shuffled orders from the
same initial values, from several initial values in the same order, and in orders with a plan.

    python -m experiments.order --out=runs/order           ten minutes on a core
    python -m experiments.order --out=runs/quick --quick   a minute: that it runs

shuffles     orders drawn by seed, all from the initial values of seed 0
inits        initial values drawn by seed, all in the order of shuffle 0
easy first   rows by the loss that a trained model (init 0) has on them, least first (Hacohen and Weinshall 2019, arXiv
             1904.03626), and hard first
common first rows by the mean surprise of their tokens when counted, least first (word rarity of Platanios et al. 2019,
             arXiv 1903.09848), and rare first

All read exactly the same rows, cut at the same places (`experiments.trials`); a planned order only decides which row
comes in which batch. The table has the standard deviation over orders beside that over initial values, each with the
standard error of a standard deviation of so few normal values, and what planned orders lose against the shuffled one,
init by init. Runs whose results are there are not repeated."""

import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments.trials import ROWS, Trials, config_of, shuffled
from experiments.yardstick import mean_and_error
from lm.commands import cli
from lm.core.errors import UserError
from lm.data.batches import Batch

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string("out", "runs/order", "Folder for results.json, table.txt and order.png.", flag_values=FLAGS)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 6, "Shuffles, and initial values.", lower_bound=2, flag_values=FLAGS)
PLANNED = flags.DEFINE_integer("planned", 3, "Initial values of each planned order.", lower_bound=1, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 384, "Steps of each run.", lower_bound=1, flag_values=FLAGS)
WIDTH = flags.DEFINE_integer("width", 32, "Of the model, a multiple of 16.", lower_bound=16, flag_values=FLAGS)
RATE = flags.DEFINE_float("rate", 1e-2, "Peak learning rate.", flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of few runs, to see that it runs.", flag_values=FLAGS)

PLANS = ("easy first", "hard first", "common first", "rare first")
Results = dict[str, dict[str, float]]  # kind of run -> seed -> held-out loss


def surprise(rows: Batch) -> np.ndarray:
    """[rows]: the mean surprise of a row's targets in nats, had each the share that it has of all of them."""
    targets = rows["targets"]
    shares = np.bincount(targets.ravel()) / targets.size
    return -np.log(shares[targets]).mean(axis=1)


def planned(plan: str, hard: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """[steps, ROWS]: all rows, sorted as the plan says by how `hard` or `rare` each is."""
    of, sign = {"easy": (hard, 1), "hard": (hard, -1), "common": (rare, 1), "rare": (rare, -1)}[plan.split()[0]]
    return np.argsort(sign * of, kind="stable").reshape(-1, ROWS)


def spread(losses: list[float]) -> tuple[float, float]:
    """The standard deviation, and the standard error of that: s / sqrt(2 (n - 1))."""
    s = float(np.std(losses, ddof=1))
    return s, s / (2 * (len(losses) - 1)) ** 0.5


def against(results: Results, plan: str) -> list[float]:
    """What a planned order loses, for each of its initial values, against the shuffled one from the same."""
    return [loss - results["inits"][seed] for seed, loss in results[plan].items()]


def measured(trials: Trials, steps: int, seeds: int, plans: int, file: Path, console: Console) -> Results:
    """All runs, those from `file` that are there."""
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    rows = trials.rows(steps * ROWS)
    every = np.arange(steps * ROWS)
    first = shuffled(every, 1, 0)

    def run(kind: str, order: np.ndarray, seed: int, init: int) -> None:
        of, begun = results.setdefault(kind, {}), time.monotonic()
        if str(seed) not in of:
            of[str(seed)] = trials.loss(trials.trained(rows, order, init))
            file.write_text(json.dumps(results, indent=1) + "\n")
            console.print(f"{kind} {seed}: loss {of[str(seed)]:.4f}, {time.monotonic() - begun:.0f} s")

    for seed in range(seeds):
        run("inits", first, seed, init=seed)
        run("shuffles", shuffled(every, 1, seed), seed, init=0)
    if any(len(results.get(plan, {})) < plans for plan in PLANS):
        hard, rare = trials.losses(trials.trained(rows, first, 0), rows), surprise(rows)
        for plan in PLANS:
            for seed in range(plans):
                run(plan, planned(plan, hard, rare), seed, init=seed)
    return results


def table(results: Results) -> Table:
    shown = Table("runs", title="held-out loss, nats per token")
    for column in ("number", "mean", "standard deviation", "against the shuffled order"):
        shown.add_column(column, justify="right")
    for kind, of in results.items():
        values, lost, deviation = list(of.values()), "", ""
        if kind in PLANS:
            mean, error = mean_and_error(against(results, kind))
            lost = f"{mean:+.4f} ± {error:.4f}" if len(values) > 1 else f"{mean:+.4f}"
        else:
            deviation = "{:.4f} ± {:.4f}".format(*spread(values))
        shown.add_row(kind, str(len(values)), f"{np.mean(values):.4f}", deviation, lost)
    return shown


def plot(results: Results, png: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for place, (kind, of) in enumerate(results.items()):
        color = "C3" if kind in PLANS else "C0"
        axes.plot(list(of.values()), [place] * len(of), "o", ms=5, alpha=0.6, color=color)
        axes.plot(np.mean(list(of.values())), place, "|", ms=18, mew=2, color=color)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set(xlabel="held-out loss, nats per token", title="one text in several orders (bar: mean)")
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    out, console = Path(OUT.value), Console(stderr=True)
    steps, seeds, plans = (8, 2, 1) if QUICK.value else (STEPS.value, SEEDS.value, PLANNED.value)
    if WIDTH.value % 16:
        raise UserError(f"--width={WIDTH.value} must be a multiple of 16, the width of a head")
    if plans > seeds:
        raise UserError(f"--planned={plans} initial values are compared with --seeds={seeds}: give no more than those")
    out.mkdir(parents=True, exist_ok=True)
    trials = Trials(config_of(WIDTH.value, SOURCE.value, str(out / "cache"), RATE.value))
    results = measured(trials, steps, seeds, plans, out / "results.json", console)
    with (out / "table.txt").open("w") as file:
        for place in (Console(), Console(file=file, width=110)):
            place.print(table(results))
    plot(results, out / "order.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'order.png'}    results: {out / 'results.json'}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
