"""Train models of several sizes at equal compute, and find the size of least loss at each budget (isoFLOP
profiles).

    python -m scaling.sweep --out=runs/sweep             # 2 budgets x 3 sizes: five minutes on two CPU cores
    python -m scaling.sweep --out=runs/wide --config.sweep.budgets=1e12,2e12,4e12
        --config.sweep.shapes="((16,2),(32,2),(48,3),(64,4))"
    python -m scaling.sweep --out=runs/mine --config.data.source=corpus/ --config.data.pattern="*.md"

A budget is the training FLOPs of one run: with it a small model reads more text than a large one. The runs of
one size share a trunk at constant learning rate, off which each budget's cool-down branches. For the knobs see
experiments/sweep.py (the default of --config), scaling/plan.py and lm/train/config.py.

--out gets runs.jsonl (one record a run: params, tokens, flops, loss ...), isoflop.png and config.json. The same
command again runs only what is missing, so a stopped sweep goes on, and one with more budgets, shapes or seeds
grows. To fit the records in other ways: python -m scaling.fit runs/sweep/runs.jsonl --where=loss

Is the result good? Each budget's star must lie well between its sizes (else add sizes on that side), and a second
seed (--config.sweep.seeds=0,1) should hardly move it.
"""

import sys
from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "sweep.py"

CONFIG = cli.ConfigFlag("Sweep file, config.json of a sweep, or its folder; experiments/sweep.py if not given.")
OUT = flags.DEFINE_string("out", None, "Folder of the sweep, made if absent: records, plot, config.")
PRINT = flags.DEFINE_boolean("print_config", False, "Show every knob with its comment, and exit.")

USAGE = "--out=DIR [--config=FILE] [--config.a.b=VALUE ...]"


def main(argv: list[str]) -> None:
    if not OUT.value and not PRINT.value:  # an empty one would be this folder
        raise UserError(cli.lacking("out", usage=USAGE))
    from lm.train.config_file import read_config  # JAX starts here, not for --help
    from lm.train.override import override
    from lm.train.show_config import shown, size_notes

    from .plan import default
    from .runner import sweep

    config = read_config(CONFIG.file or DEFAULT, default)
    notes = override(config, CONFIG.knobs)
    if PRINT.value:
        print(*(f"# {line}" for line in notes), shown(config, default), sep="\n")
        return
    for line in notes + size_notes(config):
        print(line, file=sys.stderr)
    try:
        runs = sweep(config, str(OUT.value))
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the runs that are missing", file=sys.stderr)
        sys.exit(130)
    fit(runs)


def fit(runs: Path) -> None:
    """Approach 2 over the runs that have a loss: prints its report and draws isoflop.png beside the records."""
    import numpy as np

    from . import approach2, plots, report
    from .records import read_runs

    columns = read_runs(runs, where=["loss"])
    fitted = approach2.fit(*(columns[key] for key in ("params", "tokens", "loss", "budget")))
    resampled = approach2.bootstrap(fitted)
    largest = float(columns["budget"].max())
    found = report.isoflop(fitted, resampled, [largest, 10 * largest], level=95, source=str(runs))
    if resampled is None:
        found["notes"].append(approach2.NOTHING_FREE)
    if len(np.unique(columns["budget"])) < 4:
        found["notes"].append("few budgets: the exponents are rough")
    print(report.text(found))
    plot = runs.with_name("isoflop.png")
    unit = str(columns["loss_unit"][0])
    title = f"{runs.parent.name}: isoFLOP profiles"
    plots.save(plots.isoflop(fitted, resampled, title=title, unit=unit, extrapolate=[largest]), plot)
    print(f"\nwrote {runs} and {plot}")


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
