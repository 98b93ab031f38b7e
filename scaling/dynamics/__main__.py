"""What a run has learned by heart, which tokens it predicts badly, and how large a batch suits it, at each of its
checkpoints; and which metrics of runs leap where their loss falls evenly.

    python -m scaling.dynamics --checkpoint=runs/quickstart --out=runs/quickstart/dynamics
    python -m scaling.dynamics --checkpoint=runs/small,runs/large --out=runs/compared --rows=512 --noise=32
    python -m scaling.dynamics --runs=experiments/isoflop/runs.jsonl --metrics=accuracy,accuracy^4 --out=runs/leaps

- memorisation: the share of windows of training text that greedy decoding reproduces from their first tokens, by the
  length of that prefix and by how often the window stands in the training text, beside windows of held-out text, which
  says how many are only easy (Carlini et al. 2022, arXiv 2202.07646; Pythia, Biderman et al. 2023, 2304.01373);
- loss by a token's position in the row, and by how often the training text has it;
- with --noise, the gradient noise scale, in tokens (McCandlish et al. 2018, arXiv 1812.06162);
- emergence: how many windows of n tokens are predicted without a fault, against the loss and the compute of
  checkpoints, or of the runs of a table: where a metric passes --level, and how sudden that is beside the loss
  (Schaeffer et al. 2023, arXiv 2304.15004).

Training rows are those that the run has read, spread over its steps (batches that recovery skipped are not left out).
For causal models with the objective NextToken. --out gets dynamics.json, dynamics.png and, of three checkpoints or more
that each improve on those with less compute, emergence.json and emergence.png.

--runs is a table as scaling.fit reads it, with columns for FLOPs (or parameters and tokens), loss, and each of
--metrics, shares between 0 and 1. accuracy^16 is that column to the 16th power: the exact match of 16 tokens, were each
right independently."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

if TYPE_CHECKING:
    from ..records import Runs
    from .measure import Asked

CHECKPOINT = flags.DEFINE_list("checkpoint", None, "Folders of runs, separated by commas.")
OUT = flags.DEFINE_string("out", None, "Folder for JSON and PNG files, made if absent.")
ROWS = flags.DEFINE_integer("rows", 256, "Rows of training text, and of held-out text, at most.", lower_bound=1)
PREFIXES = flags.DEFINE_list("prefixes", ["8", "16", "32", "64"], "Tokens of a window that are given.")
CONTINUATION = flags.DEFINE_integer("continuation", 16, "Tokens of a window that must follow.", lower_bound=1)
NOISE = flags.DEFINE_integer("noise", 0, "Batches of which the gradient noise scale is taken; 0: it is not.", 0)
RUNS = flags.DEFINE_string("runs", None, "In place of --checkpoint: a table of runs, as scaling.fit reads it.")
METRICS = flags.DEFINE_list("metrics", ["accuracy", "accuracy^4", "accuracy^16"], "Of --runs: columns, and powers.")
WHERE = flags.DEFINE_list("where", ["loss"], "Of --runs: rows that pass every condition, as in scaling.fit.")
LEVEL = flags.DEFINE_float("level", 0.1, "Share at which a metric counts as there.", 0.0, 1.0)

USAGE = "--checkpoint=RUN[,RUN ...]|--runs=RUNS.jsonl --out=DIR [flags]"


def asked() -> "Asked":
    from .measure import Asked

    if not all(p.isdecimal() and int(p) for p in PREFIXES.value):
        raise UserError(f"--prefixes={','.join(PREFIXES.value)} must be numbers of tokens: 8,16,32")
    if 0 < NOISE.value < 3:
        raise UserError(f"--noise={NOISE.value} batches tell of no noise: give 3 or more, or 0")
    return Asked(ROWS.value, tuple(map(int, PREFIXES.value)), CONTINUATION.value, NOISE.value)


def main(argv: list[str]) -> None:
    if RUNS.value and CHECKPOINT.value:
        raise UserError("--runs and --checkpoint are two ways to say which runs: give one")
    for name, flag in (("checkpoint", RUNS if RUNS.value else CHECKPOINT), ("out", OUT)):
        if not flag.value:
            raise UserError(cli.lacking(name, usage=USAGE))
    if not 0 < LEVEL.value < 1:
        raise UserError(f"--level={LEVEL.value:g} is passed by every run or by none: give a share between 0 and 1")
    out = Path(str(OUT.value)).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    if RUNS.value:
        from ..records import read_runs

        runs = read_runs(Path(RUNS.value).expanduser(), where=WHERE.value, needs=("flops", "loss"))
        return emergence(runs, METRICS.value, out)
    records = checkpoints(asked())
    from ..plots import save
    from ..plots.dynamics import dynamics
    from .emergence import of_checkpoints

    (out / "dynamics.json").write_text(json.dumps(records, indent=1) + "\n")
    save(dynamics(records), out / "dynamics.png")
    print(f"plot: {out / 'dynamics.png'}    measures: {out / 'dynamics.json'}")
    runs = of_checkpoints(records)
    try:
        emergence(runs, [name for name in runs if name.startswith(("accuracy", "exact"))], out)
    except UserError as e:  # the rest stands without it
        print(f"no emergence: {e}", file=sys.stderr)
    return None


def checkpoints(want: "Asked") -> list[dict[str, Any]]:
    """What each checkpoint of the runs asked for knows."""
    from lm.runs.checkpoint import Checkpoints  # JAX starts here, not for --help

    from .measure import measure

    records = []
    for run in CHECKPOINT.value or ():
        steps = [step for step in Checkpoints(run, read_only=True).steps if step]
        if not steps:
            raise UserError(f"{run} has no checkpoint of a trained model: give the --workdir of a training run")
        for record in measure(run, steps, want):
            records.append({"run": str(run), **record})
            print(line(record), file=sys.stderr)
    return records


def emergence(runs: "Runs", names: list[str], out: Path) -> None:
    """Tell, write and draw where these metrics of runs pass --level."""
    from ..plots import save
    from ..plots.emergence import emergence as picture
    from .emergence import described, lines

    found = described(runs, names, LEVEL.value)
    for told in lines(found, LEVEL.value):
        print(told)
    as_json = {name: e._asdict() for name, e in found.items()}
    (out / "emergence.json").write_text(json.dumps(_nulls({"level": LEVEL.value, "metrics": as_json}), indent=1) + "\n")
    save(picture(runs, names, found, LEVEL.value), out / "emergence.png")
    print(f"plot: {out / 'emergence.png'}    measures: {out / 'emergence.json'}")


def _nulls(value: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _nulls(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def line(record: dict[str, Any]) -> str:
    loss = ", ".join(f"{nats:.3f} on {part} rows" for part, nats in record["loss"].items())
    longest = {part: list(rates.values())[-1] for part, rates in record["memorised"].items() if rates}
    rates = ", ".join(f"{100 * r['share']:.1f} ± {100 * r['error']:.1f} % of {part}" for part, r in longest.items())
    told = f"step {record['step']}: nats per token {loss}; reproduced {rates} windows"
    if not (noise := record.get("noise_scale")):
        return told
    if noise["tokens"] is None:
        return f"{told}; the gradient drowns in noise: give more batches than --noise={noise['batches']}"
    return f"{told}; noise scale {noise['tokens']:,.0f} ± {noise['error']:,.0f} tokens"


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
