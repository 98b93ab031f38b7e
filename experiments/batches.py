"""Is a larger batch worth its tokens? One model on the same tokens in batches of several sizes, and with the batch
doubled half-way as Gopher, PaLM and GPT-3 raised theirs, beside its gradient noise scale.

    python -m experiments.batches --out=runs/batches           ten minutes on a core
    python -m experiments.batches --out=runs/quick --quick     a minute: that it runs

All runs read the same rows once, in the same order for a seed (`experiments.trials`): batches of twice the rows take
half the steps. The learning rate rises over the first twentieth of the tokens and falls along a cosine over all of
them; its peak is the best of three around `--rate` times the square root of the batch over `--rows`. Runs that double
keep the rate of the batch they begin with.

By McCandlish et al. 2018 (arXiv 1812.06162, equation 2.11) a batch of B tokens needs 1 + B / B_crit times the tokens of
a very small one for the same loss, where B_crit is about the noise scale. That is taken half-way and at the end of a
run with the smallest batch (`scaling.dynamics.noise`). Runs whose results are there are not repeated."""

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments.trials import CONTEXT, Trials, config_of
from experiments.yardstick import mean_and_error
from lm.commands import cli
from lm.core.errors import UserError
from lm.data.batches import Batch
from scaling.dynamics.noise import gradient_of, measured

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string(
    "out", "runs/batches", "Folder for results.json, table.txt and batches.png.", flag_values=FLAGS
)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each kind.", lower_bound=1, flag_values=FLAGS)
ROWS = flags.DEFINE_integer("rows", 4, "Of the smallest batch.", lower_bound=1, flag_values=FLAGS)
DOUBLINGS = flags.DEFINE_integer("doublings", 4, "Of it, up to the largest.", lower_bound=1, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 768, "Steps at the smallest batch.", lower_bound=1, flag_values=FLAGS)
WIDTH = flags.DEFINE_integer("width", 32, "Of the model, a multiple of 16.", lower_bound=16, flag_values=FLAGS)
RATE = flags.DEFINE_float("rate", 7e-3, "Peak learning rate at the smallest batch.", flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of few runs, to see that it runs.", flag_values=FLAGS)

FACTORS = (0.5, 1.0, 2.0)  # of the learning rate
WARMUP = 0.05  # share of the tokens
MEASURED = 32  # batches of the smallest size, of which the noise scale is taken
Plan = tuple[tuple[int, float], ...]  # (rows of a batch, share of the tokens) of each part of a run
Results = dict[str, Any]


def batched(order: np.ndarray, plan: Plan) -> list[np.ndarray]:
    """Row numbers in order, as the batches of a plan."""
    ends = (np.cumsum([share for _, share in plan]) * len(order)).round().astype(int)
    parts = np.split(order, ends[:-1])
    return [batch for part, (rows, _) in zip(parts, plan, strict=True) for batch in part.reshape(-1, rows)]


def rates_of(batches: Sequence[np.ndarray], peak: float) -> np.ndarray:
    """[steps]: by the share of the tokens that are read before the middle of each batch, so that batches of any size
    have the same learning rate at the same place."""
    sizes = np.array([len(batch) for batch in batches])
    read = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    fallen = np.clip((read - WARMUP) / (1 - WARMUP), 0, 1)
    return peak * np.minimum(read / WARMUP, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * fallen)))


def best(results: Results, rows: int) -> float:
    """The factor of the learning rate that is best at a batch, by seed 0."""
    return min(FACTORS, key=lambda factor: results[name_of(((rows, 1.0),), factor, 0)])


def name_of(plan: Plan, factor: float, seed: int) -> str:
    return f"{' then '.join(str(rows) for rows, _ in plan)} rows, rate x {factor:g}, seed {seed}"


def made(trials: Trials, rows: Batch, sizes: Sequence[int], seeds: int, file: Path, console: Console) -> Results:
    """All runs, and the noise scale of the smallest batch's; those from `file` that are there."""
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    smallest, count = sizes[0], len(rows["tokens"])

    def run(plan: Plan, factor: float, seed: int) -> None:
        name, begun = name_of(plan, factor, seed), time.monotonic()
        if name not in results:
            batches = batched(np.random.default_rng(seed).permutation(count), plan)
            peak = factor * RATE.value * (plan[0][0] / smallest) ** 0.5
            results[name] = trials.loss(trials.trained(rows, batches, seed, rates_of(batches, peak)))
            file.write_text(json.dumps(results, indent=1) + "\n")
            console.print(f"{name}: loss {results[name]:.4f}, {time.monotonic() - begun:.0f} s")

    for size in sizes:
        for factor in FACTORS:
            run(((size, 1.0),), factor, 0)
    for seed in range(seeds):
        for size, larger in zip(sizes, [*sizes[1:], None], strict=True):
            run(((size, 1.0),), best(results, size), seed)
            if larger:
                run(((size, 0.5), (larger, 0.5)), best(results, size), seed)
    if "noise" not in results:
        results["noise"] = noise_of(trials, rows, smallest, best(results, smallest))
        file.write_text(json.dumps(results, indent=1) + "\n")
    return results


def noise_of(trials: Trials, rows: Batch, size: int, factor: float) -> dict[str, list[float]]:
    """The noise scale in tokens and its error, half-way and at the end of a run of seed 0."""
    batches = batched(np.random.default_rng(0).permutation(len(rows["tokens"])), ((size, 1.0),))
    rates = rates_of(batches, factor * RATE.value)
    fresh = trials.rows(len(rows["tokens"]) + MEASURED * size)  # behind those that the run reads
    chosen = np.arange(len(rows["tokens"]), len(fresh["tokens"])).reshape(MEASURED, size)
    judged = [{name: x[at] for name, x in fresh.items()} for at in chosen]
    gradient, found = gradient_of(trials.parts.model, trials.parts.objective), {}
    for when, steps in (("half-way", len(batches) // 2), ("at the end", len(batches))):
        noise = measured(gradient, trials.trained(rows, batches[:steps], 0, rates[:steps]), judged)
        found[when] = [noise.tokens, noise.error]
    return found


def losses(results: Results, plan: Plan, seeds: int) -> list[float]:
    factor = best(results, plan[0][0])
    return [results[name_of(plan, factor, seed)] for seed in range(seeds)]


def table(results: Results, sizes: Sequence[int], tokens: int, seeds: int) -> Table:
    shown = Table("batch, tokens", title=f"held-out loss after {tokens:,} tokens, nats per token")
    for column in ("steps", "best rate", "loss", "against half of it", "doubled half-way", "against not"):
        shown.add_column(column, justify="right")
    before: list[float] | None = None
    for size, larger in zip(sizes, [*sizes[1:], None], strict=True):
        of = losses(results, ((size, 1.0),), seeds)
        rate = best(results, size) * RATE.value * (size / sizes[0]) ** 0.5
        cells = [f"{size * CONTEXT:,}", f"{tokens // (size * CONTEXT):,}", f"{rate:.3g}", with_error(of)]
        cells.append("" if before is None else with_error(list(np.subtract(of, before)), "+"))
        if larger:
            doubled = losses(results, ((size, 0.5), (larger, 0.5)), seeds)
            cells += [with_error(doubled), with_error(list(np.subtract(doubled, of)), "+")]
        shown.add_row(*cells)
        before = of
    return shown


def with_error(values: list[float], sign: str = "") -> str:
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.3f} ± {error:.3f}" if len(values) > 1 else f"{mean:{sign}.3f}"


def lines(results: Results) -> list[str]:
    return [f"noise scale {when}: {n:,.0f} ± {error:,.0f} tokens" for when, (n, error) in results["noise"].items()]


def plot(results: Results, sizes: Sequence[int], seeds: int, png: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    at = np.array(sizes) * CONTEXT
    kept = [mean_and_error(losses(results, ((size, 1.0),), seeds)) for size in sizes]
    pairs = list(itertools.pairwise(sizes))
    doubled = [mean_and_error(losses(results, ((a, 0.5), (b, 0.5)), seeds)) for a, b in pairs]
    for x, found, label in ((at, kept, "kept"), (at[:-1], doubled, "doubled half-way")):
        mean, error = np.array(found).T
        axes.errorbar(x, mean, np.nan_to_num(error), fmt="-o", ms=4, capsize=2, label=label)
    for (when, (noise, error)), color in zip(results["noise"].items(), ("C2", "C3"), strict=True):
        if np.isfinite(noise):
            axes.axvline(noise, color=color, ls="--", lw=1, label=f"noise scale {when}")
            axes.axvspan(noise - error, noise + error, color=color, alpha=0.15, lw=0)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="batch at the start, tokens", ylabel="held-out loss, nats per token", title="equal tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    out, console = Path(OUT.value), Console(stderr=True)
    steps, seeds, doublings = (8, 1, 1) if QUICK.value else (STEPS.value, SEEDS.value, DOUBLINGS.value)
    if WIDTH.value % 16:
        raise UserError(f"--width={WIDTH.value} must be a multiple of 16, the width of a head")
    if steps % 2 ** (doublings + 1):
        raise UserError(f"--steps={steps} halved must hold whole batches: give a multiple of {2 ** (doublings + 1)}")
    sizes, count = [ROWS.value * 2**n for n in range(doublings + 1)], steps * ROWS.value
    out.mkdir(parents=True, exist_ok=True)
    trials = Trials(config_of(WIDTH.value, SOURCE.value, str(out / "cache"), RATE.value))
    results = made(trials, trials.rows(count), sizes, seeds, out / "results.json", console)
    with (out / "table.txt").open("w") as file:
        for place in (Console(), Console(file=file, width=110)):
            place.print(table(results, sizes, count * CONTEXT, seeds))
            for line in lines(results):
                place.print(line, highlight=False)
    plot(results, sizes, seeds, out / "batches.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'batches.png'}    results: {out / 'results.json'}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
