"""Programs that are compiled for TPU pods by tests, and what was found of each: tests/golden/tpu/*.json.

    python -m tests.tpu.cases small-dense                 compile, and print the record
    python -m tests.tpu.cases --write llama-2-7b          and write it to the golden file

Needs libtpu on PYTHONPATH (.venv/libtpu). Small ones take seconds, others one to several minutes each. What has a row
in benchmarks/maxtext.py is compiled as that says, so that one compilation serves both."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).parents[1] / "golden" / "tpu"
FAST, SLOW, BY_HAND = "in the default suite", "slow", "by hand"


class Case(NamedTuple):
    """config: a recipe, or a family and a size, or a row of benchmarks/maxtext.py; knobs: what is changed of it."""

    when: str
    topology: str
    config: tuple[str, str]
    knobs: dict[str, Any]
    step: str = "train"
    batch: int = 0
    length: int = 0


SMALL = {"data.length": 128, "data.batch_size": 32, "mesh.fsdp": 4, "train.remat": "full"}
CASES = {
    "small-dense": Case(FAST, "v5e:4x4", ("small", ""), SMALL),
    "small-decode": Case(FAST, "v5e:4x4", ("small", ""), {**SMALL, "mesh.tensor": 4}, "decode", batch=32, length=128),
    "llama-2-7b": Case(SLOW, "v5p:4x4x2", ("maxtext", "llama2-7b"), {}),
    "mixtral-8x7b": Case(BY_HAND, "v5p:4x4x4", ("maxtext", "mixtral-8x7b"), {}),
    "stages": Case(
        BY_HAND,
        "v5p:4x4x2",
        ("llama", "2-7b"),
        {
            "data.batch_size": 128,
            "mesh.fsdp": 8,
            "parallel.pipeline": 4,
            "parallel.microbatches": 16,
            "train.remat": "full",
        },
    ),
    "ring-128k": Case(
        BY_HAND,
        "v5p:4x4x4",
        ("llama", "3-8b"),
        {
            "data.length": 131_072,
            "data.batch_size": 4,
            "mesh.fsdp": 4,
            "mesh.context": 16,
            "train.remat": "full",
        },
    ),
    "ul2-20b": Case(BY_HAND, "v5p:4x4x4", ("ul2", "20b"), {"mesh.fsdp": 64, "train.remat": "full"}),
    "glam-64b-64e": Case(
        BY_HAND,
        "v5p:8x8x8",
        ("family", "glam 64b-64e"),
        {"data.length": 1024, "data.batch_size": 1024, "mesh.expert": 16, "mesh.fsdp": 32, "train.remat": "full"},
    ),
    "llama-2-70b": Case(
        BY_HAND, "v5p:8x8x8", ("llama", "2-70b"), {"data.batch_size": 1024, "mesh.fsdp": 512, "train.remat": "full"}
    ),
    "gpt3-175b": Case(BY_HAND, "v5p:8x8x8", ("maxtext", "gpt3-175b"), {}),
}


def names(when: str) -> list[str]:
    """Of the cases that are compiled then."""
    return [name for name, case in CASES.items() if case.when == when]


def config_of(case: Case) -> Any:
    import importlib

    from benchmarks.maxtext import ROWS
    from experiments.recipes import recipe

    kind, size = case.config
    if kind == "maxtext":
        config = ROWS[size].config()
    elif kind == "family":
        config = recipe.of(*size.split())
    elif kind == "small":
        config = recipe.of("llama", "tiny", {"layers": 2, "d_model": 256, "heads": 4, "kv_heads": 4, "vocab": 512})
    else:
        config = importlib.import_module(f"experiments.recipes.{kind}").get_config(size)
    for name, value in case.knobs.items():
        config.update_from_flattened_dict({name: value})
    return config


def record(name: str) -> dict[str, Any]:
    """What is compared: bytes and FLOPs of a chip, in one run."""
    from tpu.ahead import Options, report

    case = CASES[name]
    r = report(config_of(case), case.topology, Options(case.step, case.batch, case.length))
    sent: dict[str, int] = {}
    for t in r.collectives:
        sent[t.axes] = sent.get(t.axes, 0) + round(t.bytes)
    return {
        "topology": case.topology,
        "mesh": r.mesh,
        "fits": r.memory.fits,
        "hbm": r.memory.used,
        "arguments": r.memory.arguments,
        "activations": r.memory.activations,
        "memory_analysis": r.memory.analysis,
        "flops": r.flops,
        "model_flops": round(r.model_flops),
        "traffic": r.bytes,
        "sent": sent,
        "runs": {f"{t.kind} {t.axes}": t.runs for t in r.collectives},
        "step_seconds": float(f"{r.time.step:.4g}"),
        "mfu": float(f"{r.mfu:.3g}"),
        "notes": len(r.notes),
        "compile_seconds": r.compile_seconds,
        "versions": r.versions,
    }


def path(name: str) -> Path:
    return GOLDEN / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    return json.loads(path(name).read_text())


def worse(found: dict[str, Any], golden: dict[str, Any], by: float = 0.05) -> Iterator[str]:
    """What a program needs more of than it did: memory, FLOPs, traffic, bytes sent. Less is no fault, but should be
    recorded."""
    pairs = {name: (found[name], golden[name]) for name in ("hbm", "flops", "traffic")}
    pairs["sent"] = (sum(found["sent"].values()), sum(golden["sent"].values()))
    for name, (now, before) in pairs.items():
        if now > before * (1 + by):
            yield f"{name}: {now:,} where there were {before:,} ({now / before - 1:+.1%})"
    if found["notes"] > golden["notes"]:
        yield f"{found['notes']} things could not be counted"
    if golden["fits"] and not found["fits"]:
        yield "it no longer fits"


def beyond_maxtext(name: str, found: dict[str, Any]) -> Iterator[str]:
    """What a program needs more of than MaxText's at the same settings, where it has a row there."""
    kind, row = CASES[name].config
    if kind != "maxtext":
        return
    from benchmarks.maxtext import ROWS

    arguments = sum(found["arguments"].values())
    ours = (arguments / 1e9, (found["hbm"] - arguments) / 1e9, found["flops"], sum(found["sent"].values()) / 1e9)
    for (what, theirs), mine in zip(ROWS[row].theirs._asdict().items(), ours, strict=True):
        if theirs is not None and mine > theirs * 1.005:  # they are known to three digits
            yield f"{what}: {mine:.4g}, and MaxText's {theirs:.4g}"


def main(arguments: list[str]) -> None:
    from tpu import topology  # noqa: F401  sets up this process before jax starts

    write = "--write" in arguments
    for name in (a for a in arguments if a != "--write"):
        found = record(name)
        print(json.dumps({name: found}), flush=True)
        if write:
            path(name).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
