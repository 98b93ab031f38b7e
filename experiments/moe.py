"""Experts against the dense layers that cost as much: one decoder, one text, one number of steps; only what stands in
the place of the feed-forward layers differs, and each token passes through the same width of it.

    python -m experiments.moe --out=runs/moe            about a quarter of an hour on a quiet CPU
    python -m experiments.moe --out=runs/quick --quick  a minute or two, to see that it runs

dense      a gated feed-forward layer in each block
switch     experts of its full width, one of which serves a token (Switch)
glam       experts of half its width, two of which serve a token (GLaM)
deepseek   a shared expert and many narrow ones, six of which serve a token, balanced without a loss (DeepSeek-V3)

The first block is dense in all of them, and no expert is ever full: a limit, as Switch and GLaM had on TPUs, would
drop tokens or compute for empty places, and the cost would not be the dense model's. The models are this small because
experts pay only after enough tokens: a dense one of this size has soon learned what it can hold. Routers begin with
logits that differ (`FanIn`): from nearly equal ones a token goes now here, now there, and no expert learns its own.

The table has what a model holds and what it spends per token, and the loss on held-out text with its standard error
over seeds; the plot, the loss as training goes on. Each run's folder has plots of its routers' loads. Runs whose
results are there are not repeated."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.yardstick import mean_and_error
from lm.commands import cli
from lm.core.component import to_dict
from lm.core.errors import UserError, nearest
from lm.core.param import FanIn, Normal, count
from lm.inspect.cost import active_parameters, training_flops
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary
from lm.model.transformer import LanguageModel
from lm.train.config import default
from lm.train.loop import train
from lm.zoo.parts import decoder, pre_norm

FLAGS = flags.FlagValues()  # its own: tests import this beside other command lines
OUT = flags.DEFINE_string("out", "runs/moe", "Folder for runs, results.json, table.txt and moe.png.", flag_values=FLAGS)
SOURCE = flags.DEFINE_string("source", "python-stdlib", "Text to train on, as config.data.source.", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model.", lower_bound=1, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 1200, "Training steps of each run.", lower_bound=1, flag_values=FLAGS)
ONLY = flags.DEFINE_list("only", [], "Models to run, as dense,switch; all by default.", flag_values=FLAGS)
QUICK = flags.DEFINE_bool("quick", False, "Few steps of one seed, to see that it runs.", flag_values=FLAGS)

LAYERS, D, HEADS, VOCAB = 2, 48, 3, 512
WIDTH = 192  # of the feed-forward layers that a token passes through in a block
CONTEXT, ROWS = 128, 8  # tokens of a row, rows of a batch
SMALL = Normal(0.02, depth=2 * LAYERS)


def feed_forward(width: int) -> GatedMLP:
    return GatedMLP(width, out_init=SMALL)


def dense(block: int) -> GatedMLP:
    return feed_forward(WIDTH)


def switch(block: int) -> GatedMLP | MoE:
    return MoE(8, feed_forward(WIDTH), TopK(k=1, init=FanIn()), Dropless()) if block else dense(block)


def glam(block: int) -> GatedMLP | MoE:
    router = TopK(k=2, normalize=1.0, init=FanIn())
    return MoE(16, feed_forward(WIDTH // 2), router, Dropless()) if block else dense(block)


def deepseek(block: int) -> GatedMLP | MoE:
    router = TopK(k=6, score="sigmoid", normalize=1.0, rate=1e-3, init=FanIn())
    routed = MoE(48, feed_forward(WIDTH // 8), router, Dropless(), shared=feed_forward(WIDTH // 4))
    return routed if block else dense(block)


KINDS: dict[str, Callable[[int], GatedMLP | MoE]] = {k.__name__: k for k in (dense, switch, glam, deepseek)}


def model_of(kind: str) -> LanguageModel:
    norm, attention = RMSNorm(), Attention(HEADS, D // HEADS, rotary=Rotary(), projections=Projections(out_init=SMALL))
    blocks: list[Block] = [pre_norm(attention, KINDS[kind](i), norm) for i in range(LAYERS)]
    return decoder(blocks, d_model=D, vocab=VOCAB, norm=norm, tied=True)


def config_of(kind: str, steps: int, seed: int) -> ConfigDict:
    config = default()
    config.seed = seed
    with config.unlocked():
        config.model = ConfigDict(to_dict(model_of(kind)))
    config.objective.loss.aux = (("balance", 0.01 if kind != "deepseek" else 1e-4), ("router_z", 1e-3))
    config.data.update(source=SOURCE.value, cache=str(Path(OUT.value) / "cache"), tokenizer=f"bpe-{VOCAB}")
    config.data.update(length=CONTEXT, batch_size=ROWS)
    config.optimizer.learning_rate = 4e-3
    config.schedule.warmup = max(steps // 10, 1)
    config.train.update(steps=steps, unroll=True)
    config.log.update(eval_every=max(steps // 6, 1), eval_batches=64, checkpoint_every=0)
    return config


def result_of(kind: str, seed: int, steps: int, console: Console) -> dict:
    """What one run reached; from its file if that is there."""
    run = Path(OUT.value) / f"{kind}-{seed}"
    file = run / "result.json"
    if file.exists():
        found = json.loads(file.read_text())
        if found["steps"][-1] != steps:
            raise UserError(f"{file} is of {found['steps'][-1]} steps, not --steps={steps}: give another --out")
        return found
    begun = time.monotonic()
    train(config_of(kind, steps, seed), run, console)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [(r["step"], r["validation_loss"]) for r in records if "validation_loss" in r]
    speed = float(np.median([r["seconds_per_step"] for r in records if "seconds_per_step" in r]))
    found = {"model": kind, "seed": seed, "steps": [s for s, _ in curve], "losses": [loss for _, loss in curve]}
    found |= {"seconds_per_step": speed, "seconds": round(time.monotonic() - begun, 1)}
    file.write_text(json.dumps(found) + "\n")
    return found


def against_dense(found: list[dict], kind: str) -> np.ndarray:
    """Losses [seeds, evaluations] minus those of the dense model: a seed is the same text in the same order for all."""
    losses = {(r["model"], r["seed"]): np.array(r["losses"]) for r in found}
    return np.array([x - losses["dense", seed] for (model, seed), x in losses.items() if model == kind])


def with_error(values: list[float], digits: str) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:{digits}} ± {error:.3f}" if len(values) > 1 else f"{mean:{digits}}"


def table(found: list[dict]) -> Table:
    kinds = list(dict.fromkeys(r["model"] for r in found))
    speeds = {k: float(np.median([r["seconds_per_step"] for r in found if r["model"] == k])) for k in kinds}
    shown = Table("model", title="held-out loss: mean and standard error over seeds")
    for column in ("parameters", "active", "MFLOPs a token", "held-out loss, nats", "against dense", "time a step"):
        shown.add_column(column, justify="right")
    for kind in kinds:
        model = model_of(kind)
        finals = [r["losses"][-1] for r in found if r["model"] == kind]
        gain = time_ratio = "-"
        if "dense" in kinds and kind != "dense":
            gain = with_error(list(against_dense(found, kind)[:, -1]), "+.3f")
            time_ratio = f"{speeds[kind] / speeds['dense']:.2f} x"
        flops = training_flops(model, CONTEXT) / CONTEXT / 1e6
        cells = (f"{count(model.spec()) / 1e6:.2f} M", f"{active_parameters(model) / 1e6:.2f} M", f"{flops:.2f}")
        shown.add_row(kind, *cells, with_error(finals, ".3f"), gain, time_ratio)
    return shown


def plot(found: list[dict], png: Path) -> None:
    kinds = list(dict.fromkeys(r["model"] for r in found))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for place, kind in enumerate(kinds):
        runs = [r for r in found if r["model"] == kind]
        shown = [(left, np.array([r["losses"] for r in runs]))]
        if "dense" in kinds and kind != "dense":
            shown.append((right, against_dense(found, kind)))
        for axes, losses in shown:
            axes.plot(runs[0]["steps"], losses.mean(0), "-o", ms=3, color=f"C{place}", label=kind)
            if len(runs) > 1:
                error = losses.std(0, ddof=1) / np.sqrt(len(runs))
                around = (losses.mean(0) - error, losses.mean(0) + error)
                axes.fill_between(runs[0]["steps"], *around, color=f"C{place}", alpha=0.2)
    left.set(xlabel="step", ylabel="held-out loss, nats per token", title="held-out loss (band: standard error)")
    right.axhline(0, color="tab:gray", lw=1)
    right.set(xlabel="step", ylabel="nats per token", title="minus that of the dense model, seed by seed")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    if unknown := [name for name in ONLY.value if name not in KINDS]:
        raise UserError(f"--only={unknown[0]} is no model of this experiment{nearest(unknown[0], KINDS)}")
    out, console = Path(OUT.value), Console(stderr=True)
    steps, seeds = (6, 1) if QUICK.value else (STEPS.value, SEEDS.value)
    planned = [(kind, seed) for seed in range(seeds) for kind in KINDS if kind in (ONLY.value or KINDS)]
    found: list[dict] = []
    begun = time.monotonic()
    for kind, seed in planned:
        found.append(result_of(kind, seed, steps, console))
        left = (time.monotonic() - begun) / len(found) * (len(planned) - len(found))
        console.print(f"[bold]{len(found)} of {len(planned)} runs, about {left / 60:.0f} minutes left")
    for place in (Console(), Console(file=(out / "table.txt").open("w"), width=110)):
        place.print(table(found))
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, out / "moe.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'moe.png'}    results: {out / 'results.json'}")


if __name__ == "__main__":
    cli.run(main, flag_values=FLAGS)
