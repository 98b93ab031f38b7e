"""Is the learning rate of a small model that of a large one?

    python -m experiments.transfer --out=runs/transfer           # ten minutes on two CPU cores
    python -m experiments.transfer --out=runs/quick --quick      # a minute: that it runs

LLaMAs of 32 to 128 wide, then of 2 to 8 layers, each trained at seven learning rates on the same text in the same
order (the Python standard library's source, in bytes): as they are, and with the smallest one as the base of
`config.parametrization`. All learning rates of a model train at once, under `jax.vmap`, since `State.hyper` is traced.
The loss is the mean over the last tenth of the steps, each on text not read before.

The table has the best learning rate of each size, between those tried, and what the smallest model's best one costs
there; the plot, losses against learning rates. Sizes whose results are there are not repeated."""

import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.train.config import default
from lm.train.prefetch import DevicePrefetcher
from lm.train.setup import assemble
from lm.zoo.registry import knobs

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string(
    "out", "runs/transfer", "Folder for results.json, table.txt and transfer.png.", flag_values=FLAGS
)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 150, "Training steps of each run.", lower_bound=10, flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of the smaller sizes.", flag_values=FLAGS)

RATES = tuple(2.0**-n for n in range(9, 2, -1))
HEAD = 16  # of every model: attention's scores need no other scale


def wide(d: int) -> dict[str, int]:
    return {"d_model": d, "heads": d // HEAD, "d_ff": 2 * d, "layers": 2}


def deep(layers: int) -> dict[str, int]:
    return {**wide(32), "layers": layers}


SIZES = {"width": {d: wide(d) for d in (32, 64, 128)}, "depth": {n: deep(n) for n in (2, 4, 8)}}
# By what grows: a name, and config.parametrization.alpha for a base of the smallest size; None: the standard one.
KINDS: dict[str, dict[str, float | None]] = {
    "width": {"standard": None, "muP": 1.0},
    "depth": {"standard": None, "CompleteP": 1.0},
}
Knobs = tuple[tuple[str, int], ...]


def config_of(size: Knobs, base: Knobs, alpha: float, steps: int) -> ConfigDict:
    """Of one model, at any learning rate; with no `base` in the standard parametrization."""
    config = default()
    with config.unlocked():
        config.model = knobs("llama", vocab=512, **dict(size))
    config.parametrization.update(base=base, alpha=alpha)
    config.data.update(source=SOURCE.value, length=128, batch_size=8, tokenizer="byte")
    config.schedule.warmup = steps // 10
    config.train.update(steps=steps)
    return config


@functools.cache
def losses(size: Knobs, base: Knobs, alpha: float, steps: int) -> list[float | None]:
    """The loss of the last tenth of the steps, in nats per token, at each peak learning rate; None: it diverged."""
    parts = assemble(config_of(size, base, alpha, steps), sharding=None)
    trainer, batches = parts.trainer, DevicePrefetcher(parts.batches, None)
    begin = trainer.init(parts.hyper)
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(RATES), *x.shape)).copy(), begin)
    states.hyper["learning_rate"] = jnp.array(RATES, jnp.float32)
    step = jax.jit(jax.vmap(trainer.step, in_axes=(0, None)), donate_argnums=0)
    found = []
    for _ in range(steps):
        states, metrics = step(states, next(batches))
        found.append(np.asarray(metrics["objective"].total / metrics["objective"].weight))
    means = np.mean(found[-steps // 10 :], axis=0)
    return [float(x) if np.isfinite(x) else None for x in means]


def best(found: list[float | None]) -> tuple[float, float]:
    """(log2 of the best learning rate, the loss there): the vertex of a parabola through the least loss and its
    neighbours; at an edge, that edge."""
    values = np.array([np.inf if x is None else x for x in found])
    i, at = int(np.argmin(values)), np.log2(RATES)
    near = values[max(i - 1, 0) : i + 2]
    if len(near) < 3 or not np.isfinite(near).all():
        return float(at[i]), float(values[i])
    a, b, c = np.polyfit(at[i - 1 : i + 2], near, 2)
    return float(-b / (2 * a)), float(c - b * b / (4 * a))


def table(results: dict[str, list[float | None]]) -> Table:
    shown = Table(
        "what grows", "parametrization", title="best learning rate, and the loss that the smallest model's costs"
    )
    for column in ("size", "log2 of the best rate", "loss there", "at the smallest one's", "lost"):
        shown.add_column(column, justify="right")
    for what, kinds in KINDS.items():
        for kind in kinds:
            rows = {n: found for n in SIZES[what] if (found := results.get(f"{what} {kind} {n}"))}
            if not rows:
                continue
            shared = int(np.argmin([np.inf if x is None else x for x in next(iter(rows.values()))]))
            for n, found in rows.items():
                rate, least = best(found)
                there = found[shared]
                lost = "diverged" if there is None else f"{there - min(x for x in found if x is not None):.3f}"
                cells = (f"{rate:.1f}", f"{least:.3f}", "-" if there is None else f"{there:.3f}", lost)
                shown.add_row(what, kind, str(n), *cells)
    return shown


def plot(results: dict[str, list[float | None]], png: Path) -> None:
    columns = max(map(len, KINDS.values()))
    figure, axes = plt.subplots(len(KINDS), columns, figsize=(4.2 * columns, 7), layout="constrained", sharex=True)
    for row, (what, kinds) in zip(axes, KINDS.items(), strict=True):
        seen = [x for key, found in results.items() if key.startswith(what) for x in found if x is not None]
        for ax in row[len(kinds) :]:
            ax.set_axis_off()
        for ax, kind in zip(row, kinds, strict=False):
            for i, n in enumerate(SIZES[what]):
                if found := results.get(f"{what} {kind} {n}"):
                    values = np.array([np.nan if x is None else x for x in found])
                    color = plt.get_cmap("viridis")(i / (len(SIZES[what]) - 1))
                    ax.plot(RATES, values, "-o", ms=3, color=color, label=f"{what} {n}")
                    at = int(np.nanargmin(values))
                    ax.plot(RATES[at], values[at], "*", ms=12, color=color)
            ax.set(title=f"{what}: {kind}", xscale="log", ylabel="loss, nats per byte")
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
    steps, sizes = (10, 2) if QUICK.value else (STEPS.value, 3)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    results: dict[str, list[float | None]] = json.loads(file.read_text()) if file.exists() else {}
    for what, kinds in KINDS.items():
        smallest = next(iter(SIZES[what].values()))
        for n, size in list(SIZES[what].items())[:sizes]:
            for kind, alpha in kinds.items():
                key, begun = f"{what} {kind} {n}", time.monotonic()
                if key in results:
                    continue
                base = {} if alpha is None or size == smallest else smallest
                results[key] = losses(tuple(size.items()), tuple(base.items()), alpha if base else 1.0, steps)
                file.write_text(json.dumps(results, indent=1) + "\n")
                console.print(f"{key}: {time.monotonic() - begun:.0f} s")
    for place in (Console(), Console(file=(out / "table.txt").open("w"), width=110)):
        place.print(table(results))
    plot(results, out / "transfer.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'transfer.png'}    results: {file}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
