"""What a compiled program needs and does on a pod: `analyse` makes the report, `describe` writes it for people."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from lm.train.chips import Chip
from lm.train.footprint import readable
from tpu import hbm, hlo
from tpu.collectives import axes
from tpu.hbm import Dump
from tpu.roofline import Roofline, Torus, name_of, roofline, seconds
from tpu.work import Work, work

TRILLION = 1e12


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each chip."""

    arguments: dict[str, int]  # by kind: parameters, optimizer, batch, cache; by their shapes and shardings
    activations: int  # what the forward pass saves for the backward pass, read from the program
    allocated: int | None  # of everything by XLA's buffer assignment; None where the compiler did not write it
    analysis: dict[str, int]  # of `Compiled.memory_analysis()`: arguments, outputs, alias, temporaries, code, peak
    available: int  # on the chip
    fits: bool  # by the compiler's own judgement
    largest: tuple[tuple[int, str], ...] = ()  # buffers of HBM and the arrays that use them

    @property
    def used(self) -> int:
        """By the buffer assignment, or where there is none by `memory_analysis`; the program's code not included."""
        a = self.analysis
        return self.allocated or a["arguments"] + a["outputs"] - a["alias"] + a["temporaries"]

    @property
    def temporaries(self) -> int:
        """What is neither arguments nor saved activations: gradients, gathered weights, scratch space, padding."""
        return max(self.used - sum(self.arguments.values()) - self.activations, 0)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of one kind along the same mesh axes, on one chip and in one run of the program."""

    kind: str
    axes: str  # joined by +; "dcn" between slices
    sites: int  # in the program's text
    runs: int  # with loops counted
    bytes: float  # that the chip sends
    seconds: float
    overlapped: float  # share of these seconds in collectives that begin and end apart


@dataclasses.dataclass(frozen=True)
class Report:
    """`tokens`: that one run of the program reads (or, decoding, writes). `flops` and `bytes` of memory traffic are of
    one chip, loops counted, recomputation included; `model_flops` what the model needs of them, by
    `lm.inspect.cost`."""

    program: str
    topology: str
    chips: int
    slices: int
    mesh: dict[str, int]
    parameters: int
    tokens: int
    memory: Memory
    flops: int
    model_flops: float
    bytes: int
    host_bytes: int
    collectives: tuple[Traffic, ...]
    time: Roofline
    peak: float  # FLOP/s of a chip
    compile_seconds: float
    versions: dict[str, str]
    price: float = 0.0  # US dollars per chip and hour; 0: not given
    notes: tuple[str, ...] = ()  # what could not be counted

    @property
    def mfu(self) -> float:
        """Share of the chips' peak that the model's own FLOPs are, at the estimated step time."""
        return self.model_flops / self.peak / self.time.step

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.time.step

    @property
    def dollars_per_trillion_tokens(self) -> float:
        return self.price * self.chips / 3600 / self.tokens_per_second * TRILLION

    def to_json(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        found["memory"] |= {"used": self.memory.used, "temporaries": self.memory.temporaries}
        found["time"] |= {"floor": self.time.floor, "bound": self.time.bound}
        found |= {"mfu": self.mfu, "tokens_per_second": self.tokens_per_second}
        return found | ({"dollars_per_trillion_tokens": self.dollars_per_trillion_tokens} if self.price else {})


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Of a program alone: what it needs and does, whatever it computes."""

    memory: Memory
    work: Work
    collectives: tuple[Traffic, ...]
    time: Roofline


def analyse(
    compiled: jax.stages.Compiled | None,
    mesh: Mesh,
    generation: str,
    chip: Chip,
    arguments: Mapping[str, Any],
    dump: Dump | None = None,
) -> Analysis:
    """`compiled` runs on the devices of `mesh`, TPUs of this generation ("v5p"); None where it did not fit: then
    `dump` has all that is known. `arguments`: its abstract arguments by kind, {"parameters": tree, ..}."""
    text = (compiled.as_text() or "") if compiled is not None else dump.program if dump is not None else ""
    program = hlo.read(text)
    sizes = dict(mesh.shape)
    done = work(program, mesh.size)
    torus = Torus.of(list(mesh.devices.flat), generation)
    allocation = None if dump is None else dump.allocation
    if not chip.dcn and len(set(torus.slices)) > 1:
        done = dataclasses.replace(done, notes=(*done.notes, f"DCN of {generation} is not published: it takes no time"))
    memory = Memory(
        {kind: hbm.here(tree) for kind, tree in arguments.items()},
        hbm.saved(program),
        None if allocation is None else allocation.bytes,
        _memory_analysis(compiled),
        chip.hbm,
        compiled is not None,
        () if allocation is None else allocation.largest,
    )
    return Analysis(memory, done, traffic(done, sizes, torus, chip), roofline(done, sizes, torus, chip))


def traffic(done: Work, mesh: Mapping[str, int], torus: Torus, chip: Chip) -> tuple[Traffic, ...]:
    """Collectives by kind and axes, those that take longest first."""
    found: dict[tuple[str, str], list] = collections.defaultdict(list)
    for c, runs in done.collectives:
        name = name_of(c, mesh, torus)
        found[c.kind, name if name != "dcn" else f"dcn ({'+'.join(axes(c.groups, mesh))})"].append((c, runs))
    rows = []
    for (kind, name), several in found.items():
        spent = [runs * seconds(c, torus, chip) for c, runs in several]
        beside = sum(s for s, (c, _) in zip(spent, several, strict=True) if c.asynchronous)
        sent = sum(runs * c.sent for c, runs in several)
        runs = sum(runs for _, runs in several)
        share = beside / sum(spent) if sum(spent) else 0.0
        rows.append(Traffic(kind, name, len(several), runs, sent, sum(spent), share))
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _memory_analysis(compiled: jax.stages.Compiled | None) -> dict[str, int]:
    found: Any = None if compiled is None else compiled.memory_analysis()
    if found is None:
        return {}
    return {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "alias": found.alias_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
        "peak": found.peak_memory_in_bytes,
    }


def describe(r: Report) -> str:
    """The report as a person reads it."""
    mesh = " x ".join(f"{k}={v}" for k, v in r.mesh.items()) or "one device"
    versions = ", ".join(f"{k} {v}" for k, v in r.versions.items())
    several = f"{r.slices} slices of " if r.slices > 1 else ""
    head = f"{several}{r.topology}: {r.chips} chips, mesh {mesh}; {r.program}"
    head += f", compiled in {r.compile_seconds:.0f} s ({versions})"
    return "\n".join([head, *_model(r), *_memory(r.memory), *_work(r), *_collectives(r), *_time(r), *_notes(r)])


def _model(r: Report) -> list[str]:
    return [f"model        {r.parameters:,} parameters; {r.tokens:,} tokens in one run"]


def _memory(m: Memory) -> list[str]:
    kinds = {**m.arguments, "saved activations": m.activations, "temporaries": m.temporaries}
    verdict = "fits" if m.fits else "DOES NOT FIT"
    lines = [
        f"HBM          {verdict}: {readable(m.used)} a chip of {readable(m.available)} ({m.used / m.available:.0%})",
        "             " + ", ".join(f"{kind} {readable(size)}" for kind, size in kinds.items() if size),
    ]
    if a := m.analysis:
        lines.append(
            f"             by memory_analysis: arguments {readable(a['arguments'])}, temporaries "
            f"{readable(a['temporaries'])}, peak {readable(a['peak'])}, code {readable(a['code'])}"
        )
    if m.largest:
        buffers = [f"{readable(size)} {_short(shapes)}" for size, shapes in m.largest[:3]]
        lines.append(f"             largest buffers: {'; '.join(buffers)}")
    return lines


def _work(r: Report) -> list[str]:
    again = r.flops / r.model_flops if r.model_flops else 0.0
    return [
        f"FLOPs        {r.flops:.4g} a chip, {again:.2f} times the model's {r.model_flops:.4g}",
        f"memory       {readable(r.bytes)} moved through HBM a chip"
        + (f", {readable(r.host_bytes)} to and from the host" if r.host_bytes else ""),
    ]


def _collectives(r: Report) -> list[str]:
    if not r.collectives:
        return ["collectives  none"]
    rows = [
        f"{t.kind:18} {t.axes:14} {t.sites:4} in the text, run {t.runs:6} times, {readable(t.bytes):>9} sent a chip, "
        f"{1e3 * t.seconds:8.2f} ms" + (f", {t.overlapped:.0%} overlapped" if t.overlapped else "")
        for t in r.collectives
    ]
    return [f"{'collectives' if i == 0 else '':12} {row}" for i, row in enumerate(rows)]


def _time(r: Report) -> list[str]:
    t = r.time
    parts = {"compute": t.compute, "HBM": t.memory, **t.network}
    lines = [
        f"roofline     {', '.join(f'{k} {1e3 * v:.1f} ms' for k, v in parts.items())}; bound by {t.bound}",
        f"estimate     {1e3 * t.step:.1f} ms ({1e3 * t.floor:.1f} if all overlapped; {1e3 * t.held_up:.1f} of it "
        f"for collectives alone): MFU {r.mfu:.1%}, {r.tokens_per_second:,.0f} tokens/s",
    ]
    if r.price:
        cost = r.dollars_per_trillion_tokens
        lines.append(f"price        {cost:,.0f} dollars for a trillion tokens, at {r.price:g} a chip and hour")
    return lines


def _notes(r: Report) -> list[str]:
    return [f"note         {note}" for note in r.notes]


def _short(shapes: str) -> str:
    first, *others = shapes.split("], ")
    return first + ("] .." if others else "")
