"""What is a token worth that was read before? Models trained on the same number of tokens, of which fewer and fewer are
different.

    python -m experiments.repeated --out=runs/repeated           half an hour on two quiet CPU cores
    python -m experiments.repeated --out=runs/quick --quick      a minute: that it runs

Each model reads `--steps` batches: once through fresh text, and 2, 4, 8 ... times through a half, a quarter, an eighth
of it, each time in another order (`experiments.trials`). Beside them stand runs that end after that half, quarter,
eighth: what its first reading alone gives. A seed draws the initial values and every order; which text is a part of
which is the same for all. The learning rate falls along a cosine over the steps of each run.

The runs of fresh text give Chinchilla's law, with alpha = beta as in Muennighoff et al. 2023 (arXiv 2305.16264), and
with that held the laws of repeated data (`scaling.laws.repeated`) are fitted to the others: theirs, whose RD says after
how many repetitions 1 - 1/e of what can be gained has been, with its profile-likelihood interval, which has no end
where the runs do not say; and one in which repeating too often does harm. runs.jsonl holds the same runs for
`python -m scaling.fit --law=repeated`. Runs whose records are there are not repeated."""

import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments.trials import CONTEXT, ROWS, Trials, config_of, shuffled
from experiments.yardstick import mean_and_error
from lm.commands import cli
from lm.core.errors import UserError
from lm.core.param import count
from lm.inspect.cost import CONVENTION, training_flops
from scaling import engine
from scaling.laws import Chinchilla, Law, OverFitting, Repeated
from scaling.records import append_run

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string(
    "out", "runs/repeated", "Folder for runs.jsonl, table.txt and repeated.png.", flag_values=FLAGS
)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each kind.", lower_bound=1, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 384, "Steps of the runs that repeat.", lower_bound=1, flag_values=FLAGS)
WIDTHS = flags.DEFINE_list("widths", ["32", "64"], "Of the models, multiples of 16.", flag_values=FLAGS)
EPOCHS = flags.DEFINE_list("epochs", ["1", "2", "4", "8", "16", "32", "64"], "Times through.", flag_values=FLAGS)
RATE = flags.DEFINE_float("rate", 1e-2, "Peak learning rate.", flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of one small model, to see that it runs.", flag_values=FLAGS)

FEWEST_FRESH = 24  # steps of a run that ends after one reading: of shorter ones warm-up is all
LAWS: dict[str, type[Law]] = {"repeated": Repeated, "over-fitting": OverFitting}
Record = dict[str, Any]


def epochs_of(asked: list[str], steps: int) -> list[int]:
    """Raises `UserError` for what no whole number of steps is read so often."""
    for n in asked:
        if not n.isdecimal() or not int(n) or steps % int(n):
            raise UserError(f"--epochs={n} must be a number of times that divides --steps={steps}")
    return sorted({1, *map(int, asked)})


def runs_of(epochs: list[int], steps: int) -> list[tuple[int, int]]:
    """(steps through different rows, times through them) of each run."""
    fresh = [(steps // n, 1) for n in epochs if n > 1 and steps // n >= FEWEST_FRESH]
    return [*fresh, *((steps // n, n) for n in epochs)]


def made(trials: Trials, width: int, wanted: list[tuple[int, int]], seeds: int, file: Path, console: Console) -> None:
    """Append the records of these runs to `file`, those left out that it has."""
    config, model = trials.parts.config, trials.parts.model
    params, per_row = count(model.spec()), training_flops(model, CONTEXT)
    # What all records of a folder share, beside the tokens of those that repeat.
    same = {"data": trials.parts.data.digest, "learning_rate": config.optimizer.learning_rate}
    for record in read(file):
        if other := [key for key, value in same.items() if record[key] != value]:
            raise UserError(f"{file} holds runs of another {other[0]}, {record[other[0]]}: give another --out")
    rows = trials.rows(ROWS * max(unique for unique, _ in wanted))
    for seed in range(seeds):
        for unique, times in wanted:
            name, begun = f"{width}-{unique}-{times}-{seed}", time.monotonic()
            if any(r["cell"] == name for r in read(file)):
                continue
            order = shuffled(np.arange(unique * ROWS), times, seed)
            loss = trials.loss(trials.trained(rows, order, seed))
            tokens = order.size * CONTEXT
            record = {"params": params, "tokens": tokens, "flops": order.size * per_row, "flops_convention": CONVENTION}
            record |= {"loss": loss, "loss_unit": "nats/token", "cell": name, "seed": seed, "width": width}
            record |= {"unique_tokens": tokens // times, "epochs": times, "steps": len(order), **same}
            append_run(file, record, once="cell")
            console.print(f"d {width}, {unique} steps x {times}: loss {loss:.4f}, {time.monotonic() - begun:.0f} s")


def read(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def columns(records: list[Record], *names: str) -> list[np.ndarray]:
    return [np.array([r[name] for r in records], np.float64) for name in names]


def base_law(records: list[Record]) -> Chinchilla:
    """Of the runs that read nothing twice. Raises `UserError` where they determine none."""
    inputs = columns([r for r in records if r["epochs"] == 1], "params", "tokens", "loss")
    return engine.fit(Chinchilla, inputs[:2], inputs[2], tied={"alpha": "beta"}).law


def fitted(records: list[Record], law: type[Law], base: Chinchilla) -> dict[str, Any]:
    """The constants of repetition of a law, by all runs, with 90 % profile-likelihood intervals (None: no end), and the
    root mean square of its errors on runs that repeat, in percent of the loss."""
    repeating = [r for r in records if r["epochs"] > 1]
    *inputs, loss = columns(records, *law.reads, "loss")
    found = engine.fit(law, inputs, loss, fixed=base.constants())
    profiles = engine.profile(found, inputs, loss, lambda law: {k: law.constants()[k] for k in found.space.free})
    *seen, goal = columns(repeating, *law.reads, "loss")
    off = 100 * float(np.sqrt(np.mean(engine.errors(found.law, seen, goal) ** 2)))
    ends = {name: (p.low, p.high) for name, p in profiles.items()}
    intervals = {n: [x if np.isfinite(x) else None for x in ends.get(n, (np.nan,) * 2)] for n in found.space.free}
    return {"constants": found.law.constants(), "intervals": intervals, "error": off}


def fits_of(records: list[Record]) -> dict[str, Any]:
    """Of each law what `fitted` says, or why there is none."""
    try:
        base = base_law(records)
    except UserError as e:
        return {"base": str(e)}
    fits: dict[str, Any] = {"base": base.constants()}
    for name, law in LAWS.items():
        try:
            fits[name] = fitted(records, law, base)
        except UserError as e:
            fits[name] = str(e)
    return fits


def losses(records: list[Record], width: int, tokens: int, times: int) -> list[float]:
    return [r["loss"] for r in records if (r["width"], r["tokens"], r["epochs"]) == (width, tokens, times)]


def shown(values: list[float]) -> str:
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{mean:.3f} ± {error:.3f}" if len(values) > 1 else f"{mean:.3f}"


def table(records: list[Record]) -> Table:
    widths, most = sorted({r["width"] for r in records}), max(r["tokens"] for r in records)
    grid = Table("epochs", title=f"held-out loss after {most:,} tokens, and after the first epoch alone")
    grid.add_column("different tokens", justify="right")
    for width in widths:
        grid.add_column(f"d {width}", justify="right")
        grid.add_column("one epoch", justify="right")
    for times in sorted({r["epochs"] for r in records if r["tokens"] == most}):
        cells = [x for w in widths for x in (losses(records, w, most, times), losses(records, w, most // times, 1))]
        grid.add_row(str(times), f"{most // times:,}", *map(shown, cells))
    return grid


def lines(fits: dict[str, Any]) -> list[str]:
    """What the fits say, a line each."""
    if isinstance(base := fits["base"], str):
        return [f"no law of fresh data, and so none of repeated: {base}"]
    told = ["fresh data: " + ", ".join(f"{k} {v:.4g}" for k, v in base.items())]
    for name in LAWS:
        if isinstance(fit := fits[name], str):
            told.append(f"{name}: {fit}")
            continue
        ends = {k: ["?" if x is None else f"{x:.3g}" for x in pair] for k, pair in fit["intervals"].items()}
        constants = ", ".join(f"{k} {fit['constants'][k]:.3g} [{low}, {high}]" for k, (low, high) in ends.items())
        told.append(f"{name}: {constants}; off by {fit['error']:.1f} % where data repeat (root mean square)")
    return told


def plot(records: list[Record], fits: dict[str, Any], png: Path) -> None:
    widths, most = sorted({r["width"] for r in records}), max(r["tokens"] for r in records)
    figure, axes = plt.subplots(1, len(widths), figsize=(5.2 * len(widths), 4.4), layout="constrained", squeeze=False)
    for ax, width in zip(axes[0], widths, strict=True):
        mine = [r for r in records if r["width"] == width]
        params = mine[0]["params"]
        unique = np.array(sorted({r["unique_tokens"] for r in mine}))
        for times, label, color in ((0, f"until {most:,} tokens are read", "C3"), (1, "read once", "C0")):
            of = [losses(mine, width, most if times == 0 else u, most // u if times == 0 else 1) for u in unique]
            there = [(u, *mean_and_error(x)) for u, x in zip(unique, of, strict=True) if x]
            x, mean, error = np.array(there).T
            ax.errorbar(x, mean, np.nan_to_num(error), fmt="o", ms=4, color=color, label=label)
        at = np.geomspace(unique[0], unique[-1], 100)
        if isinstance(fits["base"], dict):
            ax.plot(at, Chinchilla(**fits["base"]).predict(params, at), color="C0", lw=1)
            for (name, law), style in zip(LAWS.items(), ("-", "--"), strict=True):
                if isinstance(fits[name], dict):
                    curve = law(**fits[name]["constants"]).predict(params, most, at)
                    ax.plot(at, curve, style, color="C3", lw=1, label=f"law: {name}")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="different tokens", ylabel="held-out loss, nats per token", title=f"{params:,} parameters")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    out, console = Path(OUT.value), Console(stderr=True)
    steps, seeds, widths = (16, 1, ["32"]) if QUICK.value else (STEPS.value, SEEDS.value, WIDTHS.value)
    asked = ["2", "4"] if QUICK.value else EPOCHS.value
    if wrong := [w for w in widths if not w.isdecimal() or not int(w) or int(w) % 16]:
        raise UserError(f"--widths={wrong[0]} must be a multiple of 16, the width of a head")
    wanted = runs_of(epochs_of(asked, steps), steps)
    out.mkdir(parents=True, exist_ok=True)
    for width in map(int, widths):
        trials = Trials(config_of(width, SOURCE.value, str(out / "cache"), RATE.value))
        made(trials, width, wanted, seeds, out / "runs.jsonl", console)
    records = [r for r in read(out / "runs.jsonl") if (r["steps"] // r["epochs"], r["epochs"]) in wanted]
    fits = fits_of(records)
    (out / "fits.json").write_text(json.dumps(fits, indent=1) + "\n")
    with (out / "table.txt").open("w") as file:
        for place in (Console(), Console(file=file, width=110)):
            place.print(table(records))
            for line in lines(fits):
                place.print(line, highlight=False)
    plot(records, fits, out / "repeated.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'repeated.png'}    runs: {out / 'runs.jsonl'}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
