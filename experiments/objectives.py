"""Six pretraining objectives under the same small compute, judged by one yardstick: one tower, one text, one number of
steps; only the objective and the mask of the attention differ.

    python -m experiments.objectives --out=runs/objectives            about half an hour on two CPU cores
    python -m experiments.objectives --out=runs/quick --quick         a minute or two, to see that it runs

Each trained model is asked for the second half of held-out windows given the first (bits per byte, of the same bytes
for all, in the form that its training made natural), and is fine-tuned to tell the party of a president from some
sentences of a State of the Union address (accuracy on addresses of other years). A masked model writes no text, so its
continuations are not measured. Runs whose results are there are not repeated."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from absl import flags
from ml_collections.config_dict import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.yardstick import Continued, corpus, mean_and_error
from lm.adapt.surgery.inherit import Inherit
from lm.commands import cli
from lm.core.component import to_dict
from lm.core.errors import UserError, nearest
from lm.core.metrics import values
from lm.data.eval_batches import EvalBatches
from lm.data.records.labelled import Labelled
from lm.evaluate.evaluator import Evaluator
from lm.inspect.cost import training_flops
from lm.model.heads import SequenceClassifier
from lm.model.masks import Bidirectional, Causal, Prefix
from lm.model.transformer import with_head
from lm.objectives.causal import NextToken, PrefixNextToken
from lm.objectives.denoising import PrefixMixtureOfDenoisers
from lm.objectives.examples.builder import Covered
from lm.objectives.examples.denoising import SpecialIds
from lm.objectives.examples.published import INFILLED, SEVEN, SPANS_AS_RUN
from lm.objectives.labels import Classification
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import Objective
from lm.open import open_any
from lm.train.config import as_config, default
from lm.train.data import open_data_of
from lm.train.loop import train
from lm.zoo.registry import build, knobs

CORPORA = Path(__file__).parents[2] / "shared" / "data" / "corpora"
OUT = flags.DEFINE_string("out", "runs/objectives", "Folder for runs, results.json, table.txt and objectives.png.")
ADDRESSES = flags.DEFINE_string("addresses", str(CORPORA / "sotu-party.tsv.gz"), "Labelled text; else code is taken.")
BOOK = flags.DEFINE_string("book", str(CORPORA / "moby-dick.txt"), "More text to train on, if it is there.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each objective.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 200, "Pretraining steps of each run.", lower_bound=1)
TUNING = flags.DEFINE_integer("tuning", 228, "Fine-tuning steps, of 32 rows: an epoch of the addresses.", lower_bound=1)
ONLY = flags.DEFINE_list("only", [], "Objectives to run, as causal,UL2; all by default.")
QUICK = flags.DEFINE_bool("quick", False, "Few steps of one seed, to see that it runs.")

CONTEXT, WINDOW, ROWS = 256, 128, 8  # tokens of a training row, of a window that is continued; rows of a batch
UNTRAINED = "untrained"


class Kind(NamedTuple):
    """How a model is pretrained, and its attention's mask while it is and while it is fine-tuned."""

    objective: Objective
    length: int  # tokens of the rows of text that fill CONTEXT
    mask: Any
    tuned: Any = Bidirectional()


KINDS = {
    "causal": Kind(NextToken(), CONTEXT, Causal(), Causal()),
    "prefix": Kind(PrefixNextToken(), CONTEXT, Prefix()),
    "masked": Kind(MaskedTokens(), CONTEXT, Bidirectional()),
    "span": Kind(*PrefixMixtureOfDenoisers.filling(CONTEXT, SPANS_AS_RUN), Prefix()),
    "BART": Kind(*PrefixMixtureOfDenoisers.filling(CONTEXT, INFILLED), Prefix()),
    "UL2": Kind(*PrefixMixtureOfDenoisers.filling(CONTEXT, SEVEN, exact=True), Prefix()),
    UNTRAINED: Kind(NextToken(), CONTEXT, Causal()),
}


def tower(mask: Any) -> ConfigDict:
    return knobs("palm", layers=2, d_model=128, heads=4, kv_heads=4, head_dim=32, d_ff=512, vocab=2048, mask=mask)


def base(steps: int, seed: int) -> ConfigDict:
    config = default()
    config.seed = seed
    config.data.cache = str(Path(OUT.value) / "cache")
    config.data.batch_size = ROWS
    config.train.update(steps=steps, unroll=True)
    config.schedule.warmup = max(steps // 10, 1)
    config.log.update(eval_every=0, checkpoint_every=0, eval_batches=4)
    return config


def pretraining(kind: Kind, data: Path, steps: int, seed: int) -> ConfigDict:
    config = base(steps, seed)
    with config.unlocked():
        config.model, config.objective = tower(kind.mask), ConfigDict(to_dict(kind.objective))
    config.data.update(source=str(data / "text.jsonl"), validation=str(data / "held-out.jsonl"))
    config.data.update(tokenizer="bpe-2048", length=kind.length)
    config.optimizer.learning_rate = 4e-3
    return config


def tuning(kind: Kind, data: Path, labels: tuple[str, ...], run: Path, steps: int, seed: int) -> ConfigDict:
    """The same tower with a classifier on the mean of its states."""
    config = base(steps, seed)
    model = with_head(build(tower(kind.tuned)), SequenceClassifier(len(labels), at="mean"))
    config.train.init_from = str(run)
    config.train.surgery = (to_dict(Inherit(model)),)
    with config.unlocked():
        config.objective = ConfigDict(to_dict(Classification(len(labels))))
        config.data.records = as_config(Labelled(labels=labels))
    config.data.update(source=str(data / "labelled.jsonl"), validation=str(data / "labelled-held-out.jsonl"))
    config.data.update(packing="one", long="cut", length=96, batch_size=32)
    config.log.eval_batches = 0
    config.optimizer.learning_rate = 1e-3
    return config


def continuation(name: str, ids: SpecialIds) -> Continued | None:
    """The form in which a model goes on with a text; None for one that writes none."""
    sentinel = (ids.first,)
    return {
        "causal": Continued(prefix=False),
        "prefix": Continued(),
        "span": Continued(between=(*sentinel, ids.eos), opening=sentinel),
        "BART": Continued(between=(*sentinel, ids.eos), again=True),
        "UL2": Continued(lead=(ids.of_mode("S"),), between=(ids.eos,)),
    }.get(name)


def bits_per_byte(name: str, run: Path, windows: int) -> float | None:
    """Of the second halves of the first held-out windows."""
    opened = open_any(run)
    data = open_data_of(opened.config, opened.text)
    ids = SpecialIds.of(data.tokenizer, modes=("R", "S", "X"))
    if (form := continuation(name, ids)) is None:
        return None
    sizes = data.tokenizer.token_bytes()
    held_out = EvalBatches(data.validation, WINDOW, ROWS, Covered(form, sizes))
    objective = PrefixNextToken() if form.prefix else NextToken()
    scored = Evaluator(opened.model, objective)(
        opened.params, (held_out.batch(k) for k in range(min(windows // ROWS, len(held_out) - 1)))
    )
    return values(scored)["bits_per_byte"]


def result_of(
    name: str, seed: int, data: Path, labels: tuple[str, ...], steps: int, tuned_for: int, console: Console
) -> dict:
    """What one run reached; from its file if that is there."""
    folder = Path(OUT.value) / f"{name}-{seed}"
    file = folder / "result.json"
    if file.exists():
        return json.loads(file.read_text())
    kind, begun = KINDS[name], time.monotonic()
    config = pretraining(kind, data, 1 if name == UNTRAINED else steps, seed)
    if name == UNTRAINED:
        config.optimizer.learning_rate = 0.0
    train(config, folder / "pretrained", console)
    bits = None if name == UNTRAINED else bits_per_byte(name, folder / "pretrained", windows=512)
    tuned = train(tuning(kind, data, labels, folder / "pretrained", tuned_for, seed), folder / "tuned", console)
    found = {"objective": name, "seed": seed, "bits_per_byte": bits, "accuracy": tuned["accuracy"]}
    found["seconds"] = round(time.monotonic() - begun, 1)
    file.write_text(json.dumps(found) + "\n")
    return found


def table(found: list[dict], flops: float) -> Table:
    shown = Table("objective", title=f"{flops:.3g} training FLOPs each; mean and standard error over seeds")
    for column in ("bits per byte of continuations", "accuracy after fine-tuning", "seeds"):
        shown.add_column(column, justify="right")
    for name in dict.fromkeys(r["objective"] for r in found):
        runs = [r for r in found if r["objective"] == name]
        bits = [r["bits_per_byte"] for r in runs if r["bits_per_byte"] is not None]
        cells = ("{:.3f} ± {:.3f}".format(*mean_and_error(bits)) if bits else "-",)
        accuracy, error = mean_and_error([r["accuracy"] for r in runs])
        shown.add_row(name, *cells, f"{100 * accuracy:.1f} ± {100 * error:.1f} %", str(len(runs)))
    return shown


def plot(found: list[dict], png: Path) -> None:
    names = list(dict.fromkeys(r["objective"] for r in found))
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    titles = ("bits per byte of continuations (lower is better)", "accuracy after fine-tuning (higher is better)")
    for axes, key, title in zip(panels, ("bits_per_byte", "accuracy"), titles, strict=True):
        shown = [n for n in names if any(r["objective"] == n and r[key] is not None for r in found)]
        for place, name in enumerate(shown):
            points = [r[key] for r in found if r["objective"] == name]
            mean, error = mean_and_error(points)
            axes.plot([place] * len(points), points, ".", color="tab:gray", alpha=0.6)
            axes.errorbar(place, mean, error, fmt="o", color="tab:blue", capsize=4)
        axes.set(xticks=range(len(shown)), xticklabels=shown, title=title)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(png, dpi=120)
    plt.close(figure)


def main(_: list[str]) -> None:
    if unknown := [name for name in ONLY.value if name not in KINDS]:
        raise UserError(f"--only={unknown[0]} is no objective of this experiment{nearest(unknown[0], KINDS)}")
    out, console = Path(OUT.value), Console(stderr=True)
    steps, tuned_for, seeds = (4, 2, 1) if QUICK.value else (STEPS.value, TUNING.value, SEEDS.value)
    labels = corpus(out / "data", Path(ADDRESSES.value), Path(BOOK.value))
    planned = [(name, seed) for seed in range(seeds) for name in KINDS if name in (ONLY.value or KINDS)]
    found: list[dict] = []
    begun = time.monotonic()
    for name, seed in planned:
        found.append(result_of(name, seed, out / "data", labels, steps, tuned_for, console))
        left = (time.monotonic() - begun) / len(found) * (len(planned) - len(found))
        console.print(f"[bold]{len(found)} of {len(planned)} runs, about {left / 60:.0f} minutes left: {found[-1]}")
    flops = steps * ROWS * training_flops(build(tower(Causal())), CONTEXT)
    for place in (Console(), Console(file=(out / "table.txt").open("w"), width=100)):
        place.print(table(found, flops))
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, out / "objectives.png")
    print(f"table: {out / 'table.txt'}    plot: {out / 'objectives.png'}    results: {out / 'results.json'}")


if __name__ == "__main__":
    cli.run(main)
