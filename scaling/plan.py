"""Plan a sweep: which runs to make with so much compute, and how well they will answer, before any of them is made.

    python -m scaling.plan --flops=2e13 --out=runs/plan             # for experiments/sweep.py, on a laptop
    python -m scaling.sweep --plan=runs/plan/plan.json --out=runs/sweep
    python -m scaling.plan --flops=1e19 --target=1e21 --decision=loss --rule=porian --config.model.head_dim=64
        --config.model.vocab=32768 --config.model.context=2048 --config.data.length=2048 --out=runs/large
    python -m scaling.plan refine --flops=1e13 --runs=runs/sweep/runs.jsonl --out=runs/next

--flops is what all runs may cost together. Runs of one size are cool-downs off one trunk, which is paid for once
(--separate: each by itself). Three designs are compared: an isoFLOP grid, curves of fixed sizes, and the optimal one,
whose runs leave the least uncertainty about --decision at --target FLOPs. The table gives the interval that each would
answer with: its runs are simulated from the --prior law with --noise between runs, and fitted, 200 times. --out gets
plan.json, the runs of --design for scaling.sweep, and plan.png.

The prior need only be roughly right: a design is judged by several laws near it. With a first sweep of a tenth of the
compute, give its fit (--prior=fit.json), or let `refine` choose the next runs: those that, beside
the records, leave the answer least uncertain.

The learning rate of each size, and batch, warm-up, beta2 and weight decay where the rule says them, follow --rule
(scaling/rules.py): a search begins there. Shapes are a layer per head: config.model.head_dim times heads wide.
With --topology=v5e:4x4 every shape is compiled ahead of time for that pod, and a plan is refused that does not fit.
"""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .design.making import Template
    from .design.precision import Noise, Question
    from .design.propose import Belief, Outlook, Proposal
    from .design.space import Space
    from .laws import Array, Frontier

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "sweep.py"
REFINE = "refine"

OWN = flags.FlagValues()  # a set of its own, so that several command lines can be imported into one process
CONFIG = cli.ConfigFlag(
    "Sweep file, config.json of a sweep, or its folder; experiments/sweep.py if not given.", flag_values=OWN
)
FLOPS = flags.DEFINE_float(
    "flops", None, "Training FLOPs that all runs may cost together.", lower_bound=0, flag_values=OWN
)
OUT = flags.DEFINE_string("out", None, "Folder for plan.json and plan.png, made if absent.", flag_values=OWN)
DESIGN = flags.DEFINE_enum(
    "design", "optimal", ["optimal", "isoflop", "curves"], "Whose runs go into plan.json.", flag_values=OWN
)
DECISION = flags.DEFINE_enum(
    "decision",
    "N_opt",
    ["a", "N_opt", "D_opt", "loss", "all"],
    "What the sweep is for: the exponent of N_opt, size, tokens or loss at --target, or all constants of the law.",
    flag_values=OWN,
)
TARGET = flags.DEFINE_float(
    "target", None, "FLOPs of the run that is to be decided; 10 x --flops if not given.", 0, flag_values=OWN
)
PRIOR = flags.DEFINE_string(
    "prior", "epoch", "A law that may hold: epoch, hoffmann, kaplan ..., or a fit.json.", flag_values=OWN
)
NOISE = flags.DEFINE_float(
    "noise", None, "Of a run, in log loss: 0.005, or that of the fit, if not given.", 1e-6, 1.0, flag_values=OWN
)
SHARED = flags.DEFINE_float(
    "shared", 0.5, "Part of that noise's variance that runs of one trunk share.", 0.0, 0.95, flag_values=OWN
)
RULE = flags.DEFINE_string(
    "rule", "width", "For learning rate and batch: width, deepseek, porian, steplaw.", flag_values=OWN
)
BUDGETS = flags.DEFINE_integer(
    "budgets", 4, "Of the isoFLOP grid, and lengths of each size's curve.", 2, 12, flag_values=OWN
)
SIZES = flags.DEFINE_integer("sizes", 5, "Of each budget of the grid, and number of curves.", 3, 12, flag_values=OWN)
RATIO = flags.DEFINE_float(
    "ratio", 2.0, "Between the grid's budgets, and between a curve's lengths.", 1.1, 16, flag_values=OWN
)
MOST = flags.DEFINE_integer("most_runs", 32, "Of the optimal design, and of refine.", 6, 500, flag_values=OWN)
REACH = flags.DEFINE_float(
    "reach", 16.0, "Tokens of a run are within this factor of what suits its size.", 1.5, 256, flag_values=OWN
)
SEPARATE = flags.DEFINE_bool("separate", False, "Runs of one size do not share a trunk.", flag_values=OWN)
CORPUS = flags.DEFINE_float(
    "corpus", None, "Training tokens that there are: a run reads them four times at most.", 1, flag_values=OWN
)
LEVEL = flags.DEFINE_float("interval", 90.0, "Percent that an interval holds.", 1.0, 99.9, flag_values=OWN)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Compile every shape for this pod, v5e:4x4, and refuse what is too big.", flag_values=OWN
)
RUNS = flags.DEFINE_string(
    "runs", None, "Of refine: the records to go on from (CSV, JSON lines, Parquet).", flag_values=OWN
)
WHERE = flags.DEFINE_list(
    "where", [], "Of refine: keep records that pass every condition, as in scaling.fit.", flag_values=OWN
)
COLUMNS = flags.DEFINE_list(
    "columns", [], "Of refine: our names for the file's columns, as in scaling.fit.", flag_values=OWN
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Of the planned runs (refine: 0 takes one that no record has) and of what is simulated.",
    lower_bound=0,
    flag_values=OWN,
)

LAW = flags.DEFINE_string("law", "chinchilla", "Of refine: the law that is fitted to the records.", flag_values=OWN)

USUAL_NOISE = 0.005  # of log loss, between small models that differ in their seed alone: half a percent or less
USAGE = "[refine] --flops=X --out=DIR [--config=FILE] [--config.a.b=VALUE ...]"


def main(argv: list[str]) -> None:
    for flag in (FLOPS, OUT):
        if not flag.value:
            raise UserError(cli.lacking(flag.name, OWN, USAGE))
    if argv[1:] not in ([], [REFINE]):
        raise UserError(f"unexpected argument {argv[1]!r}: the only one is {REFINE!r}; see --help")
    if TOPOLOGY.value:
        from tpu import topology  # noqa: F401  sets up this process before jax starts
    refine() if argv[1:] else plan()


def plan() -> None:
    """Three designs compared, one of them written."""
    from .design.forecast import others
    from .design.grids import Grid
    from .design.making import space_of
    from .design.propose import Belief, designs, proposal

    template, flops, question = _template(), _flops(), _question()
    law, near, noise, delta = _prior()
    space = space_of(template, law, flops, shared=not SEPARATE.value, corpus=CORPUS.value or math.inf)
    near = near or others(law, *space.around(law), seed=SEED.value)
    belief = Belief(law, near, _noise(noise), delta, PRIOR.value)
    grid = Grid(BUDGETS.value, SIZES.value, RATIO.value)
    made = designs(space, belief, question, flops, grid, runs=MOST.value, reach=REACH.value, seed=SEED.value)
    if DESIGN.value not in made:
        few = "or more --corpus" if CORPUS.value else "or smaller models"
        raise UserError(f"--flops={flops:.4g} is too little for --design={DESIGN.value}: give more, {few}")
    proposals = {
        name: proposal(space, template, belief, question, design, flops, level=LEVEL.value, seed=SEED.value)
        for name, design in made.items()
    }
    runs = {name: space.inputs(p.design) for name, p in proposals.items()}
    outlooks = {name: p.outlook for name, p in proposals.items()}
    _finish(template, space, belief, question, proposals[DESIGN.value], DESIGN.value, runs, outlooks)


def refine() -> None:
    """The runs that would tell most beside those of the records."""
    from .design.making import space_of
    from .design.propose import Belief, proposal, with_records
    from .design.refine import known, new_seed, refine
    from .records import read_runs, renamings

    if not RUNS.value:
        raise UserError(cli.lacking("runs", OWN, USAGE))
    law = _frontier(LAW.value)
    runs = read_runs(RUNS.value, columns=renamings(COLUMNS.value), where=WHERE.value)
    template, flops, question = _template(), _flops(), _question()
    told = known(law, runs, seed=SEED.value)
    space = space_of(template, told.law, flops, shared=not SEPARATE.value, corpus=CORPUS.value or math.inf)
    belief = Belief(told.law, (), _noise(told.noise), told.delta, Path(RUNS.value).name)
    design = refine(
        space, told, runs, belief.noise, question, flops, most=MOST.value, reach=REACH.value, seed=SEED.value
    )
    seed = SEED.value or new_seed(runs)
    more = proposal(space, template, belief, question, design, flops, level=LEVEL.value, seed=seed)
    outlooks = with_records(belief, question, runs, more, space, level=LEVEL.value, seed=SEED.value)
    points = {"now": (runs["params"], runs["tokens"]), "and these": space.inputs(more.design)}
    _finish(template, space, belief, question, more, "the next", points, outlooks)


def _finish(
    template: "Template",
    space: "Space",
    belief: "Belief",
    question: "Question",
    chosen: "Proposal",
    name: str,
    runs: "Mapping[str, tuple[Array, Array]]",
    outlooks: "Mapping[str, Outlook]",
) -> None:
    """Tells and writes a plan."""
    from .cells import Plan, write_plan
    from .design.making import check_fit, outside
    from .design.propose import expected, runs_table, table
    from .plots import planned, save

    print(table(outlooks, belief, question, LEVEL.value))
    print(f"\nruns of {name}:\n{runs_table(chosen, space)}")
    for line in outside(chosen.design, space, template):
        print(f"warning: --rule={RULE.value}: {line}", file=sys.stderr)
    if TOPOLOGY.value:
        for line in check_fit(template, chosen.cells, TOPOLOGY.value):
            print(line)
    out = Path(str(OUT.value)).expanduser()
    told = expected(outlooks, belief, question, LEVEL.value, name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_plan(out / "plan.json", Plan(template.config, chosen.cells, told))
        save(planned.plan(belief.law, question, runs, outlooks, LEVEL.value), out / "plan.png")
    except OSError as e:
        raise UserError(f"--out={out}: cannot write there ({e.strerror}); name another folder") from e
    print(f"\nwrote {out / 'plan.json'} and {out / 'plan.png'}; to make these runs:")
    print(f"python -m scaling.sweep --plan={out / 'plan.json'} --out=DIR")


def _template() -> "Template":
    """What cells are made with."""
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.show_config import size_notes

    from .cells import default
    from .design.making import Template

    config = read_config(CONFIG.file or DEFAULT, default)
    for line in override(config, CONFIG.knobs) + size_notes(config):
        print(line, file=sys.stderr)
    return Template.of(config, RULE.value)


def _flops() -> float:
    assert FLOPS.value is not None  # as main has seen to
    return float(FLOPS.value)


def _question() -> "Question":
    from .design.precision import Question

    return Question(DECISION.value, TARGET.value or 10 * _flops())


def _noise(run: float) -> "Noise":
    from .design.precision import Noise

    return Noise(NOISE.value or run, 0.0 if SEPARATE.value else SHARED.value)


def _prior() -> "tuple[Frontier, tuple[Frontier, ...], float, float]":
    """The law, others that may hold (none: not known), the noise of a run, and the kink of Huber's loss."""
    from .design.forecast import some_of
    from .fit_file import read_fit
    from .laws import PUBLISHED, Frontier

    frontiers = {name: law for name, law in PUBLISHED.items() if isinstance(law, Frontier)}
    if PRIOR.value in frontiers:
        law = frontiers[PRIOR.value]
        return law, (), USUAL_NOISE, law.delta
    if not Path(PRIOR.value).expanduser().exists():
        raise UserError(
            f"--prior={PRIOR.value} is no file, and no law of those published{nearest(PRIOR.value, frontiers)}"
        )
    known = read_fit(PRIOR.value, "prior")
    return known.law, () if known.resampled is None else some_of(known.resampled), known.noise, known.law.delta


def _frontier(name: str) -> "type[Frontier]":
    from .laws import LAWS, Frontier

    frontiers = {name: law for name, law in LAWS.items() if issubclass(law, Frontier)}
    if name not in frontiers:
        raise UserError(f"--law={name} says nothing of how to divide compute{nearest(name, frontiers)}")
    return frontiers[name]


if __name__ == "__main__":
    cli.run(main, arguments=1, usage=USAGE, flag_values=OWN)
