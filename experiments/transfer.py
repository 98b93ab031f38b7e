"""Is the learning rate of a small model that of a large one?

    python -m experiments.transfer --out=runs/transfer           # three quarters of an hour on one core
    python -m experiments.transfer --out=runs/quick --quick      # a minute: that it runs

LLaMAs of 32 to 128 wide, then of 2 to 8 layers, each trained at several learning rates on the same rows in the same
order (`experiments.trials`): as they are, and with the smallest one as the base of `config.parametrization`. A seed
draws the initial values and the order of all of them. The loss is that of held-out text.

The table has the best learning rate of each size, between those tried, and what the smallest model's best one costs
there; the plot, losses against learning rates: means over seeds, with their standard error. Runs whose results are
there are not repeated."""

import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.trials import ROWS, Trials, config_of, shape_of, shuffled
from experiments.yardstick import mean_and_error
from lm.commands import cli

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string(
    "out", "runs/transfer", "Folder for results.json, table.txt and transfer.png.", flag_values=FLAGS
)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 256, "Training steps of each run.", lower_bound=10, flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 2, "Runs at each learning rate.", lower_bound=1, flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of the smaller sizes.", flag_values=FLAGS)

RATES = tuple(2.0**-n for n in range(9, 3, -1))
SIZES = {
    "width": {d: shape_of(d, layers=2) for d in (32, 64, 128)},
    "depth": {n: shape_of(32, layers=n) for n in (2, 4, 8)},
}
# By what grows: a name, and config.parametrization.alpha for a base of the smallest size; None: the standard one.
KINDS: dict[str, dict[str, float | None]] = {
    "width": {"standard": None, "muP": 1.0},
    "depth": {"standard": None, "CompleteP": 1.0},
}
Knobs = dict[str, int]
Losses = list[float | None]  # at each rate; None: it diverged, once at least
Results = dict[str, float | None]  # name of a run -> its loss


def parametrized(size: Knobs, base: Knobs, alpha: float | None) -> ConfigDict:
    """Of one model; in the standard parametrization with no alpha, or if it is the base."""
    config = config_of(size["d_model"], SOURCE.value, str(Path(OUT.value) / "cache"), RATES[0])
    config.model.update(size)
    if alpha is not None and size != base:
        config.parametrization.update(base=tuple(base.items()), alpha=alpha)
    return config


def name_of(what: str, kind: str, n: int, rate: float, seed: int) -> str:
    """Of a run. The smallest model is the same under every parametrization, and one is the other's base in both."""
    return f"{what} {n} {kind if n != next(iter(SIZES[what])) else 'base'}, rate 2^{np.log2(rate):.0f}, seed {seed}"


def measure(results: Results, what: str, kind: str, n: int, steps: int, seeds: int, file: Path) -> None:
    """Train one model at all rates from all seeds, and write what is found to the file."""
    runs = {name_of(what, kind, n, rate, seed): (rate, seed) for seed in range(seeds) for rate in RATES}
    if all(name in results for name in runs):
        return
    trials = Trials(parametrized(SIZES[what][n], next(iter(SIZES[what].values())), KINDS[what][kind]))
    rows = trials.rows(steps * ROWS)
    for name, (rate, seed) in runs.items():
        if name not in results:
            order = shuffled(np.arange(steps * ROWS), 1, seed)
            loss = trials.judged(trials.trained(rows, order, seed, trials.shares(steps) * rate))
            results[name] = loss if np.isfinite(loss) else None
            file.write_text(json.dumps(results, indent=1) + "\n")


def losses(results: Results, what: str, kind: str, n: int, seeds: int) -> tuple[Losses, Losses]:
    """(mean over seeds, its standard error) at each rate; none if the model has not been trained."""
    means: Losses = []
    errors: Losses = []
    for rate in RATES:
        names = [name_of(what, kind, n, rate, seed) for seed in range(seeds)]
        if any(name not in results for name in names):
            return [], []
        found = [results[name] for name in names]
        kept = [x for x in found if x is not None]
        mean, error = mean_and_error(kept) if len(kept) == len(found) else (None, None)
        means.append(mean)
        errors.append(error)
    return means, errors


def best(found: Losses) -> tuple[float, float]:
    """(log2 of the best learning rate, the loss there): the vertex of a parabola through the least loss and its
    neighbours; at an edge, that edge."""
    values = np.array([np.inf if x is None else x for x in found])
    i, at = int(np.argmin(values)), np.log2(RATES)
    near = values[max(i - 1, 0) : i + 2]
    if len(near) < 3 or not np.isfinite(near).all():
        return float(at[i]), float(values[i])
    a, b, c = np.polyfit(at[i - 1 : i + 2], near, 2)
    return float(-b / (2 * a)), float(c - b * b / (4 * a))


def table(results: Results, seeds: int) -> Table:
    shown = Table(
        "what grows", "parametrization", title="best learning rate, and the loss that the smallest model's costs"
    )
    for column in ("size", "log2 of the best rate", "loss there", "at the smallest one's", "lost"):
        shown.add_column(column, justify="right")
    for what, kinds in KINDS.items():
        smallest, _ = losses(results, what, next(iter(kinds)), next(iter(SIZES[what])), seeds)
        for kind in kinds:
            for n in SIZES[what]:
                found, errors = losses(results, what, kind, n, seeds)
                if not any(found):
                    continue
                shared = RATES.index(2.0 ** round(best(smallest)[0]))  # of those tried, the nearest to the best
                rate, least = best(found)
                there, error = found[shared], errors[shared]
                if there is None or error is None:
                    cells = ("-", "diverged")
                else:
                    lost = there - min(x for x in found if x is not None)
                    cells = (f"{there:.3f}" + (f" ± {error:.3f}" if np.isfinite(error) else ""), f"{lost:.3f}")
                shown.add_row(what, kind, str(n), f"{rate:.1f}", f"{least:.3f}", *cells)
    return shown


def plot(results: Results, seeds: int, png: Path) -> None:
    columns = max(map(len, KINDS.values()))
    figure, axes = plt.subplots(len(KINDS), columns, figsize=(4.2 * columns, 7), layout="constrained", sharex=True)
    for row, (what, kinds) in zip(axes, KINDS.items(), strict=True):
        seen = [x for name, x in results.items() if name.startswith(what) and x is not None]
        for ax, kind in zip(row, kinds, strict=True):
            for i, n in enumerate(SIZES[what]):
                means, errors = (np.array(x, float) for x in losses(results, what, kind, n, seeds))
                if np.isfinite(means).any():
                    color = plt.get_cmap("viridis")(i / (len(SIZES[what]) - 1))
                    ax.errorbar(
                        RATES, means, np.nan_to_num(errors), fmt="-o", ms=3, capsize=2, color=color, label=f"{what} {n}"
                    )
                    at = int(np.nanargmin(means))
                    ax.plot(RATES[at], means[at], "*", ms=12, color=color)
            ax.set(title=f"{what}: {kind}", ylabel="held-out loss, nats per token")
            ax.set_xscale("log", base=2)
            if seen:
                ax.set_ylim(min(seen) - 0.03, min(seen) + 1.2)
            ax.grid(alpha=0.3)
            ax.legend(fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("peak learning rate (of the base)")
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    out, console = Path(OUT.value), Console(stderr=True)
    steps, seeds, sizes = (10, 1, 2) if QUICK.value else (STEPS.value, SEEDS.value, 3)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    for what, kinds in KINDS.items():
        for n in list(SIZES[what])[:sizes]:
            for kind in kinds:
                begun = time.monotonic()
                measure(results, what, kind, n, steps, seeds, file)
                console.print(f"{what} {n}, {kind}: {time.monotonic() - begun:.0f} s")
    with (out / "table.txt").open("w") as written:
        for place in (Console(), Console(file=written, width=110)):
            place.print(table(results, seeds))
    plot(results, seeds, out / "transfer.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'transfer.png'}    results: {file}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
