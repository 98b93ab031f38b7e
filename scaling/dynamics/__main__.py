"""What a run has learned by heart, and which tokens it predicts badly, at each of its checkpoints.

    python -m scaling.dynamics --checkpoint=runs/quickstart --out=runs/quickstart/dynamics
    python -m scaling.dynamics --checkpoint=runs/small,runs/large --out=runs/compared --rows=512

- memorisation: the share of windows of training text that greedy decoding reproduces from their first tokens, by the
  length of that prefix and by how often the window stands in the training text, beside windows of held-out text, which
  says how many are only easy (Carlini et al. 2022, arXiv 2202.07646; Pythia, Biderman et al. 2023, 2304.01373);
- loss by a token's position in the row, and by how often the training text has it;
- emergence: how many windows of n tokens are predicted without a fault, against the loss, over checkpoints and runs: a
  threshold on something smooth (Schaeffer et al. 2023, arXiv 2304.15004).

Training rows are those that the run has read, spread over its steps (batches that recovery skipped are not left out).
For causal models with the objective NextToken. --out gets dynamics.json and dynamics.png."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

if TYPE_CHECKING:
    from .measure import Asked

CHECKPOINT = flags.DEFINE_list("checkpoint", None, "Folders of runs, separated by commas.")
OUT = flags.DEFINE_string("out", None, "Folder for dynamics.json and dynamics.png, made if absent.")
ROWS = flags.DEFINE_integer("rows", 256, "Rows of training text, and of held-out text, at most.", lower_bound=1)
PREFIXES = flags.DEFINE_list("prefixes", ["8", "16", "32", "64"], "Tokens of a window that are given.")
CONTINUATION = flags.DEFINE_integer("continuation", 16, "Tokens of a window that must follow.", lower_bound=1)

USAGE = "--checkpoint=RUN[,RUN ...] --out=DIR [flags]"


def asked() -> "Asked":
    from .measure import Asked

    if not all(p.isdecimal() and int(p) for p in PREFIXES.value):
        raise UserError(f"--prefixes={','.join(PREFIXES.value)} must be numbers of tokens: 8,16,32")
    return Asked(ROWS.value, tuple(map(int, PREFIXES.value)), CONTINUATION.value)


def main(argv: list[str]) -> None:
    for name, flag in (("checkpoint", CHECKPOINT), ("out", OUT)):
        if not flag.value:
            raise UserError(cli.lacking(name, usage=USAGE))
    from lm.runs.checkpoint import Checkpoints  # JAX starts here, not for --help

    from ..plots import save
    from ..plots.dynamics import dynamics
    from .measure import measure

    want, records = asked(), []
    for run in CHECKPOINT.value or ():
        steps = [step for step in Checkpoints(run, read_only=True).steps if step]
        if not steps:
            raise UserError(f"{run} has no checkpoint of a trained model: give the --workdir of a training run")
        for record in measure(run, steps, want):
            records.append({"run": str(run), **record})
            print(line(record), file=sys.stderr)
    out = Path(str(OUT.value)).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    (out / "dynamics.json").write_text(json.dumps(records, indent=1) + "\n")
    save(dynamics(records), out / "dynamics.png")
    print(f"plot: {out / 'dynamics.png'}    measures: {out / 'dynamics.json'}")


def line(record: dict[str, Any]) -> str:
    loss = ", ".join(f"{nats:.3f} on {part} rows" for part, nats in record["loss"].items())
    longest = {part: list(rates.values())[-1] for part, rates in record["memorised"].items() if rates}
    rates = ", ".join(f"{100 * r['share']:.1f} ± {100 * r['error']:.1f} % of {part}" for part, r in longest.items())
    return f"step {record['step']}: nats per token {loss}; reproduced {rates} windows"


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
