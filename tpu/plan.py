"""Find the layout for a training run on a pod: which mesh, what to recompute, how many microbatches.

    python -m tpu.plan --chips=v5e-16                                       GPT-2 small, experiments/recipes/gpt2.py
    python -m tpu.plan --chips=v5p-256 --config=experiments/recipes/llama.py:3-8b --config.data.batch_size=512
    python -m tpu.plan --chips=v5p:4x4x8 --compile=0                        estimates only, in seconds

Every layout is checked and estimated without compiling: memory by tpu/memory.py, time by tpu/estimate.py. The best few
are compiled by the real TPU compiler and ranked by what it says. The rest is told why it loses."""

import copy
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "recipes" / "gpt2.py"

CONFIG = cli.ConfigFlag(
    "Experiment file, config.json of a run, or its folder; experiments/recipes/gpt2.py if not given."
)
CHIPS = flags.DEFINE_string("chips", "v5e-16", "The pod: v5p-256 as Google Cloud calls it, or a topology, v5p:4x4x8.")
SLICES = flags.DEFINE_integer("slices", 1, "So many of these, joined by the data-centre network.", lower_bound=1)
COMPILE = flags.DEFINE_integer("compile", 3, "How many of the best layouts are compiled; 0: none.", lower_bound=0)
SHOW = flags.DEFINE_integer("show", 12, "How many of the others are listed.", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "Also write the plan to this JSON file.")


class Candidate(NamedTuple):
    """A layout that is possible, with its estimates."""

    layout: Any  # tpu.layouts.Layout
    need: Any  # tpu.memory.Need
    time: Any  # tpu.estimate.Time
    fits: bool


class Plan(NamedTuple):
    """`candidates`: those that fit first, each by estimated time; `refused`: those that are impossible."""

    topology: str
    chips: int
    available: int  # bytes of memory on a chip
    tokens: int  # of a step
    candidates: list[Candidate]
    refused: dict[Any, UserError]


ROOM = 0.95  # of a chip's memory: the rest is the runtime's, and the estimate's error


def plan(config: Any, chips: str, slices: int = 1) -> Plan:
    """All layouts of `config` on these chips, estimated. Raises `UserError` for a config that is wrong by itself."""
    from tpu.topology import chip_of, devices  # isort: skip  # before jax starts
    from lm.train.config import check
    from lm.train.setup import assemble
    from tpu.estimate import Estimator
    from tpu.layouts import POLICIES, Layout, Search
    from tpu.memory import Model
    from tpu.pods import topology_of

    topology = topology_of(chips)
    chip, pod = chip_of(topology), devices(topology, slices)
    single = Layout((), 1, "none", 1).applied(config)
    check(single)
    parts = assemble(single, devices=pod[:1])
    model, estimator = Model.of(parts, POLICIES), Estimator.of(parts, chip)
    found, refused = [], {}
    for sharding, layouts in Search(config, parts.model, parts.program.spec(), pod, slices):
        if isinstance(sharding, UserError):
            refused[layouts[0]] = sharding
            continue
        placed = model.on(sharding)
        for layout in layouts:
            need = placed.need(layout.remat, config.data.batch_size, layout.accumulate, layout.walk)
            time = estimator.time(layout, sharding, len(pod), need.parameters + need.optimizer)
            found.append(Candidate(layout, need, time, need.total <= ROOM * chip.hbm))
    found.sort(key=lambda c: (not c.fits, c.time.step if c.fits else c.need.total))
    tokens = config.data.batch_size * config.data.length
    return Plan(topology, len(pod), chip.hbm, tokens, found, refused)


def best(found: Plan, number: int) -> list[Candidate]:
    """The best that fit, of each mesh one."""
    chosen: dict[Any, Candidate] = {}
    for candidate in found.candidates:
        if candidate.fits:
            chosen.setdefault((candidate.layout.mesh, candidate.layout.stages), candidate)
    return list(chosen.values())[:number]


def compiled(config: Any, found: Plan, number: int) -> list[tuple[Candidate, Any]]:
    """The best of them with the compiler's reports, the fastest that fit first."""
    from tpu.ahead import report

    rows = []
    for i, candidate in enumerate(best(found, number)):
        print(f"compiling {i + 1} of {number}: {candidate.layout} ...", file=sys.stderr, flush=True)
        rows.append((candidate, report(candidate.layout.applied(config), found.topology)))
    return sorted(rows, key=lambda row: (not row[1].memory.fits, row[1].time.step))


def describe(found: Plan, ranked: list[tuple[Candidate, Any]], show: int) -> str:
    """The plan as a person reads it."""
    from lm.train.footprint import readable
    from tpu.layouts import reasons

    fitting = [c for c in found.candidates if c.fits]
    lines = [
        f"{found.topology}: {found.chips} chips of {readable(found.available)}; {len(found.candidates)} layouts are "
        f"possible, {len(fitting)} fit by estimate, {len(found.refused)} meshes are impossible"
    ]
    if ranked:
        lines.append("compiled, the best first:")
    for i, (c, r) in enumerate(ranked):
        verdict = "" if r.memory.fits else " DOES NOT FIT"
        lines.append(
            f"{i + 1:3}. {c.layout}: {1e3 * r.time.step:.0f} ms a step (estimate {1e3 * c.time.step:.0f}), MFU "
            f"{r.mfu:.0%}, {r.tokens_per_second:,.0f} tokens/s, {readable(r.memory.used)} a chip (estimate "
            f"{readable(c.need.total)}){verdict}"
        )
        if i and r.memory.fits:
            lines.append(f"     {r.time.step / ranked[0][1].time.step - 1:+.0%}: {_slower(r, ranked[0][1])}")
    shown = {c.layout for c, _ in ranked}
    rest = [c for c in best(found, len(found.candidates)) if c.layout not in shown]
    if rest[:show]:
        lines.append("not compiled, by estimate:")
    first = fitting[0] if fitting else None
    for c in rest[:show]:
        assert first is not None
        lines.append(
            f"     {c.layout}: {1e3 * c.time.step:.0f} ms, {c.time.step / first.time.step - 1:+.0%}: "
            f"{c.time.against(first.time)}; {readable(c.need.total)} a chip"
        )
    large = [c for c in found.candidates if not c.fits]
    meshes = {(c.layout.mesh, c.layout.stages) for c in fitting}
    never: dict[Any, Candidate] = {}
    for c in large:
        if (c.layout.mesh, c.layout.stages) not in meshes:
            never.setdefault((c.layout.mesh, c.layout.stages), c)
    if never:
        lines.append(f"too large whatever is recomputed ({len(never)} meshes), for instance:")
        lines += [f"     {c.layout}: needs {c.need}" for c in list(never.values())[: max(show // 4, 1)]]
    for layouts in sorted(reasons(found.refused).values(), key=len, reverse=True):
        mesh = str(layouts[0]).partition(", remat")[0]
        lines.append(f"impossible, {len(layouts)} meshes such as {mesh}: {found.refused[layouts[0]]}")
    if not fitting:
        lines.append(
            f"nothing fits: take more chips, a shorter config.data.length, or another model than {_least(large)}"
        )
    return "\n".join(lines)


def _slower(r: Any, first: Any) -> str:
    """Why a compiled layout takes longer than the first one."""
    mine, its = ({"arithmetic": x.time.compute, "memory traffic": x.time.memory, **x.time.network} for x in (r, first))
    gaps = {name: mine[name] - its.get(name, 0.0) for name in mine}
    worst = max(gaps, key=gaps.__getitem__)
    return f"{1e3 * gaps[worst]:.0f} ms more of {worst}" + (
        "" if worst in ("arithmetic", "memory traffic") else " traffic"
    )


def _least(large: list[Candidate]) -> str:
    smallest = min(large, key=lambda c: c.need.total, default=None)
    return (
        "this one" if smallest is None else f"this one, whose smallest layout ({smallest.layout}) needs {smallest.need}"
    )


def main(argv: list[str]) -> None:
    from tpu import topology  # noqa: F401  sets up this process before jax starts  # isort: skip
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.show_config import size_notes

    config = read_config(CONFIG.file or DEFAULT)
    for line in override(config, CONFIG.knobs) + size_notes(config):
        print(line, file=sys.stderr)
    found = plan(copy.deepcopy(config), CHIPS.value, SLICES.value)
    ranked = compiled(config, found, COMPILE.value)
    print(describe(found, ranked, SHOW.value))
    winner = ranked[0][0] if ranked else next((c for c in found.candidates if c.fits), None)
    if winner is not None:
        print(f"to use it: {' '.join(winner.layout.flags(config))}")
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(_json(found, ranked), indent=2) + "\n")


def _json(found: Plan, ranked: list[tuple[Candidate, Any]]) -> dict[str, Any]:
    def row(c: Candidate) -> dict[str, Any]:
        return {"knobs": c.layout.knobs, "need": c.need._asdict(), "time": c.time._asdict(), "fits": c.fits}

    return {
        "topology": found.topology,
        "compiled": [row(c) | {"report": r.to_json()} for c, r in ranked],
        "estimated": [row(c) for c in found.candidates],
        "impossible": [{"knobs": layout.knobs, "reason": str(e)} for layout, e in found.refused.items()],
    }


if __name__ == "__main__":
    cli.run(main, usage="[--chips=v5e-16] [--config=FILE] [--config.a.b=VALUE ...] [--compile=N]")
