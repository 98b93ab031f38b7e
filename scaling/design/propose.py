"""Designs made into cells, and what each of them would answer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..cells import Cell
from ..engine import Interval, fewest
from ..engine import Space as Constants
from ..laws import Array, Frontier
from ..records import Runs
from .forecast import intervals, simulated
from .grids import Grid, curves, isoflop
from .making import Template, as_made, cells_of, cost_of
from .optimal import candidates, optimal
from .precision import DECISIONS, Noise, Question
from .space import Design, Space

FEWEST_SIZES = 3  # which an exponent needs


class Belief(NamedTuple):
    """law: the likeliest; others: some more that may hold as well; noise: of a run, in log loss; delta: the kink of
    Huber's loss with which runs will be fitted; source: where that comes from."""

    law: Frontier
    others: tuple[Frontier, ...]
    noise: Noise
    delta: float
    source: str


class Outlook(NamedTuple):
    """What some runs cost in FLOPs, shared trunks counted once, and the interval with which they would answer each
    decision."""

    runs: int
    sizes: int
    cost: float
    answers: Mapping[str, Interval]


class Proposal(NamedTuple):
    design: Design
    cells: tuple[Cell, ...]
    outlook: Outlook


def designs(
    space: Space, belief: Belief, question: Question, flops: float, grid: Grid, *, runs: int, reach: float, seed: int
) -> dict[str, Design]:
    """The three, by name; those left out of which the FLOPs do not pay for enough runs to fit the law."""
    law = belief.law

    def enough(design: Design) -> bool:
        return len(design) >= fewest(Constants(type(law))) and len(np.unique(design.sizes)) >= FEWEST_SIZES

    ruled = {"isoflop": isoflop(space, law, grid, flops), "curves": curves(space, law, grid, flops)}
    known = {name: design for name, design in ruled.items() if design is not None and enough(design)}
    best = optimal(
        space,
        (law, *belief.others),
        belief.noise,
        question,
        flops,
        among=candidates(space, law, flops, reach),
        starts=[design for design in known.values() if len(design) <= runs],
        runs=runs,
        seed=seed,
    )
    return {"optimal": best, **known} if enough(best) else known


def proposal(
    space: Space,
    template: Template,
    belief: Belief,
    question: Question,
    design: Design,
    flops: float,
    *,
    level: float,
    seed: int,
) -> Proposal:
    """The cells of a design, which cost no more than `flops`: where whole steps would, its runs are a bit shorter."""
    cells = cells_of(design, space, template, seed)
    while (cost := cost_of(cells, space)) > flops:
        design = Design(design.sizes, design.tokens * min(flops / cost, 0.999), design.budgets)
        cells = cells_of(design, space, template, seed)
    made = as_made(design, space, cells)
    N, D = space.inputs(made)
    answers = answers_of(belief, N, D, made.sizes, question, level=level, seed=seed)
    return Proposal(made, cells, Outlook(len(cells), len(np.unique(made.sizes)), cost, answers))


def answers_of(
    belief: Belief, N: Array, D: Array, trunks: Any, question: Question, *, level: float, seed: int
) -> dict[str, Interval]:
    """The intervals with which runs [runs] of these trunks would answer, by simulation."""
    found = simulated(belief.law, N, D, trunks, belief.noise, delta=belief.delta, seed=seed)
    return intervals(belief.law, found, question.flops, level)


def with_records(
    belief: Belief, question: Question, runs: Runs, more: Proposal, space: Space, *, level: float, seed: int
) -> dict[str, Outlook]:
    """What records tell by themselves, and together with more runs, which begin trunks of their own."""
    _, trunks = np.unique(runs["params"], return_inverse=True)
    N, D = space.inputs(more.design)
    both = np.concatenate([runs["params"], N]), np.concatenate([runs["tokens"], D])
    new = np.concatenate([trunks, trunks.max() + 1 + more.design.sizes])
    spent = float(runs["flops"].sum())
    now = answers_of(belief, runs["params"], runs["tokens"], trunks, question, level=level, seed=seed)
    then = answers_of(belief, *both, new, question, level=level, seed=seed)
    return {
        "now": Outlook(len(trunks), int(trunks.max()) + 1, spent, now),
        "and these": Outlook(len(new), len(np.unique(both[0])), spent + more.outlook.cost, then),
    }


def table(outlooks: Mapping[str, Outlook], belief: Belief, question: Question, level: float) -> str:
    """As a person reads it."""
    lines = [
        f"If the law of {belief.source} holds and a run is off it by {belief.noise.run:.2%}, then for "
        f"{question.flops:.3g} FLOPs ({level:g} % intervals):",
        f"{'':10}{'runs':>5}{'sizes':>7}{'FLOPs':>11}" + "".join(f"{name:>32}" for name in DECISIONS),
    ]
    for name, o in outlooks.items():
        said = "".join(f"{_shown(o.answers[k]):>32}" for k in DECISIONS)
        lines.append(f"{name:10}{o.runs:5}{o.sizes:7}{o.cost:11.3g}{said}")
    return "\n".join(lines)


def _shown(i: Interval) -> str:
    return f"{i.value:.3g} ({i.low:.3g} to {i.high:.3g})"


def runs_table(p: Proposal, space: Space) -> str:
    """The cells, a size a line."""
    lines = [f"{'size':>10}{'params':>14}{'rate':>10}{'rows':>6}  tokens (D/N)"]
    for s in np.unique(p.design.sizes):
        rung = space.sizes[s]
        own = [c for c in p.cells if (c.d_model, c.layers) == (rung.d_model, rung.layers)]
        tokens = ", ".join(
            f"{c.tokens:.3g} ({c.tokens / rung.params:.3g})" for c in sorted(own, key=lambda c: c.tokens)
        )
        lines.append(f"{rung.name:>10}{rung.params:14,}{own[0].learning_rate:10.3g}{own[0].batch_size:6}  {tokens}")
    return "\n".join(lines)


def expected(
    outlooks: Mapping[str, Outlook], belief: Belief, question: Question, level: float, chosen: str
) -> dict[str, Any]:
    """For plan.json: what was believed, asked and expected."""
    return {
        "design": chosen,
        "question": question._asdict(),
        "prior": {
            "source": belief.source,
            "formula": belief.law.formula,
            "constants": {k: float(v) for k, v in belief.law.constants().items()},
            "noise": belief.noise._asdict(),
            "delta": belief.delta,
        },
        "interval": level,
        "decisions": {k: float(v) for k, v in belief.law.decisions(question.flops).items()},
        "designs": {
            name: {"runs": o.runs, "flops": o.cost, "intervals": {k: [v.low, v.high] for k, v in o.answers.items()}}
            for name, o in outlooks.items()
        },
    }
