"""Runs that were published: where each set is, what its columns are called, which rows its authors fitted, with what.
None is part of this project, since most state no licence.

    python -m scaling.published                                  the sets
    python -m scaling.published gadre-c4                         one: origin, paper, licence, columns, how to fit it
    python -m scaling.published gadre-c4 --file=gadre_overtrain.csv --out=runs.csv
    python -m scaling.fit --runs=runs.csv --law=over-training

The last but one writes the rows of the published fit under the names that `scaling.fit` reads. `--whole` keeps the
others too, by which a fit can be judged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import flags
from numpy.typing import NDArray

from lm.commands import cli
from lm.core.errors import UserError, nearest

from .laws import MUENNIGHOFF
from .records import Runs, read_runs
from .tables import write_csv
from .tuning import lowest

FIT, TUNE = "python -m scaling.fit --runs=RUNS", "python -m scaling.tuning --runs=RUNS --out=best.csv"
USAGE = "[NAME [--file=FILE --out=RUNS.csv]]"
Rows = NDArray[np.bool_]


def _all(runs: Runs) -> Rows:
    return np.ones(len(runs["loss"]), bool)


def _same(runs: Runs) -> Runs:
    return runs


@dataclass(frozen=True)
class Origin:
    """A file of a public repository."""

    file: str  # as it is called there, cut down or renamed or not
    repository: str  # at the commit that was read
    paper: str
    licence: str


@dataclass(frozen=True)
class DataSet:
    """Runs of one published fit.

    columns: our names for the file's
    where: which rows belong to the set, as `read_runs` has it
    fitted: which of those the authors fitted
    prepare: what is made of the rows first
    fit: how to repeat the fit, once its rows are in a file RUNS
    note: what came out, and what is odd"""

    origin: Origin
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Sequence[str] = ()
    needs: Sequence[str] = ("params", "tokens", "loss")
    fitted: Callable[[Runs], Rows] = _all
    prepare: Callable[[Runs], Runs] = _same
    fit: str = ""
    note: str = ""

    def read(self, path: str | Path, *, whole: bool = False) -> Runs:
        """The rows of the published fit, or the `whole` set, from the file as it was published (or with the columns
        that are read)."""
        runs = self.prepare(read_runs(path, columns=self.columns, where=self.where, needs=self.needs))
        kept = _all(runs) if whole else self.fitted(runs)
        return {name: values[kept] for name, values in runs.items()}


# ---------------------------------------------------------------------------------------------------------------------


def _gadre(runs: Runs) -> Rows:
    """Twenty tokens a parameter for the four small models, and 320 for the smallest."""
    small, once = runs["params"] < 1e9, runs["chinchilla_multiplier"] == 1
    return (small & once) | ((runs["params"] < 2e7) & (runs["chinchilla_multiplier"] == 16))


def _in_the_sweep(runs: Runs) -> Rows:
    """Not the follow-ups placed at a predicted optimum."""
    return np.array(["validation-optimal" not in name for name in runs["name"]])


def _with_batch_tokens(runs: Runs) -> Runs:
    return {**runs, "batch_tokens": 2048 * runs["batch_seqs"]}


EPOCH = Origin(
    "data/svg_extracted_data.csv",
    "epoch-research/analyzing-chinchilla @ 9225883",
    "points read off figure 4 of Hoffmann et al. 2022 (2203.15556) by Besiroglu et al. 2024 (2404.10102)",
    "none stated",
)
CLARK = Origin(
    "data/curves.csv.gz",
    "google-deepmind/scaling_laws_for_routing @ 42da0c3",
    "Clark et al. 2022 (2202.01169)",
    "CC-BY 4.0",
)
DATABLATIONS = Origin(
    "utils/parametric_fit.ipynb, plotstables/return_alloc.ipynb",
    "huggingface/datablations @ 1370131",
    "Muennighoff et al. 2023 (2305.16264)",
    "Apache-2.0",
)
GADRE = Origin("exp_data/models/*.json", "mlfoundations/scaling @ a003c49", "Gadre et al. 2024 (2403.08540)", "MIT")
ATHENA = "Open-Athena/scaling-law-analysis @ 3e0656e"
LLAMA3 = Origin(
    "data/isoflops/extract/llama_3/isoflops.csv",
    ATHENA,
    "digitised from figure 2 of Llama 3 (2407.21783)",
    "none stated",
)
MARIN = Origin(
    "data/isoflops/extract/marin_202603/raw/isoflop-{comma,dclm}.csv",
    ATHENA,
    "Czech et al. 2026 (2603.22339), runs of Marin",
    "none stated",
)
MISFITTING = Origin(
    "data/scaling_results_last_ckpt_only.csv",
    "hadasah/scaling_laws @ 1f3708c",
    "Li et al. 2025 (2502.18969)",
    "none stated",
)
STEPLAW = Origin(
    "data/dense_lr_bs_loss.csv", "step-law/steplaw @ 32a8f4c", "Li et al. 2025 (2503.04715)", "none stated"
)

ROUTED = {"params": "dense_parameter_count", "experts": "num_experts", "loss": "loss_validation"}
MAIN = ("k=1", "routing_frequency=0.5", "flop_increase=1")  # the settings of the paper's main fit


def _clark(*others: str) -> DataSet:
    """Dense runs are those with one expert."""
    routers = ("S-Base", "Hash", "RL-R")
    left_out = tuple(f"router_type!={name}" for name in routers if name not in others)
    return DataSet(
        CLARK,
        ROUTED,
        (*MAIN, *left_out),
        ("params", "experts", "loss") if others else ("params", "loss"),
        fit=f"{FIT} --law={'routed' if others else 'size-power --delta=inf'}",
        note="the last evaluation of each run, all of 130 B tokens",
    )


def _gadre_set(name: str) -> DataSet:
    return DataSet(
        GADRE,
        {"loss": "loss_c4_val"},
        (f"train_dataset={name}",),
        fitted=_gadre,
        fit=f"{FIT} --law=over-training",
        note="five runs and four constants; the others are for judging it",
    )


def _marin(name: str) -> DataSet:
    return DataSet(
        MARIN,
        {"loss": "loss_paloma_macro"},
        (f"dataset={name}",),
        fitted=_in_the_sweep,
        fit=f"{FIT} --approach=2",
        note="budgets are exact counts, not 6 N D, so a + b is not 1",
    )


BASE = ",".join(f"{name}={getattr(MUENNIGHOFF, name):.8g}" for name in ("E", "A", "B", "alpha", "beta"))

DATASETS: dict[str, DataSet] = {
    "epoch-chinchilla": DataSet(
        EPOCH,
        where=("in_fit_240",),
        fit=f"{FIT} --law=chinchilla",
        note="without the five highest losses; read from a colour scale, to about 0.01",
    ),
    "epoch-isoflop": DataSet(
        EPOCH,
        {"budget": "isoflop_budget"},
        ("isoflop_budget",),
        fit=f"{FIT} --approach=2 --keep_edges",
        note="rows within 10 % of one of Chinchilla's nine budgets",
    ),
    "llama3": DataSet(
        LLAMA3,
        fit=f"{FIT} --approach=2",
        note="losses in an unknown unit; params are budget / (6 tokens)",
    ),
    "marin-comma": _marin("comma"),
    "marin-dclm": _marin("dclm"),
    "gadre-c4": _gadre_set("c4_original"),
    "gadre-redpajama": _gadre_set("rpj"),
    "gadre-refinedweb": _gadre_set("rw_original"),
    "clark-dense": _clark(),
    "clark-s-base": _clark("S-Base"),
    "clark-hash": _clark("Hash"),
    "datablations": DataSet(
        DATABLATIONS,
        where=("in_fit_182",),
        needs=("params", "tokens", "unique_tokens", "loss"),
        fit=f"{FIT} --law=repeated --fix={BASE}",
        note="the base law is held; RD is weakly identified, so look at its profile",
    ),
    "misfitting": DataSet(
        MISFITTING,
        prepare=lowest,
        fit=f"{FIT} --law=chinchilla",
        note="several learning rates for each size and length, of which the lowest loss is taken",
    ),
    "steplaw": DataSet(
        STEPLAW,
        {"learning_rate": "lr", "loss": "smooth_loss"},
        prepare=_with_batch_tokens,
        fit=f"{TUNE}; {FIT.replace('RUNS', 'best.csv')} --law=rate-of-size-and-data",
        note="grids of learning rate and batch at 17 cells, of which the best is found first",
    ),
}
"""By name; several may be rows of one file."""


def define_flags() -> flags.FlagValues:
    f = flags.FlagValues()
    flags.DEFINE_string("file", "", "The downloaded file.", flag_values=f)
    flags.DEFINE_string("out", "", "CSV to write: rows of the published fit, as scaling.fit reads them.", flag_values=f)
    flags.DEFINE_bool("whole", False, "All rows of the set, not only those that were fitted.", flag_values=f)
    return f


def main(argv: Sequence[str] | None = None) -> None:
    args = define_flags()

    def show(rest: list[str]) -> None:
        names = rest[1:]
        if len(names) > 1:
            raise UserError(f"give one set, not {len(names)}: python -m scaling.published {USAGE}")
        if not names:
            width = max(map(len, DATASETS))
            print("\n".join(f"{name:{width}}  {data.origin.paper}" for name, data in DATASETS.items()))
            return
        name = names[0]
        if name not in DATASETS:
            raise UserError(f"no published set {name!r}{nearest(name, DATASETS)}")
        if bool(args.file) != bool(args.out):
            raise UserError("--file=FILE and --out=RUNS.csv go together: what was downloaded, and what to write")
        if args.file:
            runs = DATASETS[name].read(Path(args.file).expanduser(), whole=args.whole)
            write_csv(runs, Path(args.out).expanduser())
            print(f"wrote {len(runs['loss'])} runs; next: {DATASETS[name].fit.replace('RUNS', args.out)}")
        else:
            print(described(name))

    cli.run(show, arguments=99, usage=USAGE, flag_values=args, argv=argv, own_code=False)


def described(name: str) -> str:
    """One set, as people read it."""
    data = DATASETS[name]
    lines = {
        "from": f"github.com/{data.origin.repository}: {data.origin.file}",
        "paper": data.origin.paper,
        "licence": data.origin.licence,
        "columns": ", ".join(f"{ours}={theirs}" for ours, theirs in data.columns.items()) or "as they are",
        "rows": ", ".join(data.where) or "all",
        "fitted": (data.fitted.__doc__ or "all of them").split("\n")[0],
        "fit": data.fit,
        "note": data.note,
    }
    return "\n".join(f"{what:8} {said}" for what, said in lines.items())


if __name__ == "__main__":
    main()
