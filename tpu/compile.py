"""Compile a training step for a TPU pod, on any machine, and say what it needs there.

    python -m tpu.compile --topology=v5e:4x4                                  GPT-2 small, experiments/recipes/gpt2.py
    python -m tpu.compile --topology=v5p:4x4x4 --config=experiments/recipes/llama.py:3-8b --config.mesh.fsdp=64

The real TPU compiler runs (libtpu, `pip install "pure-lm[tpu]"`); nothing is executed and no parameter is allocated.
The report gives memory per chip, FLOPs per step, and the collectives by kind."""

import collections
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from lm.commands import cli

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "recipes" / "gpt2.py"

CONFIG = cli.ConfigFlag(
    "Experiment file, config.json of a run, or its folder; experiments/recipes/gpt2.py if not given."
)
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "TPU generation and shape: v5e:4x4, v5p:4x4x4, v6e:16x16 ...")
OUT = flags.DEFINE_string("out", None, "Also write the report to this JSON file.")

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def report(config: Any, topology: str) -> dict[str, Any]:
    """Compile the train step of `config` for `topology`; bytes are per chip."""
    from tpu.topology import chip_of, devices, quiet_stderr  # isort: skip  # sets up this process before jax starts
    import jax

    from lm.core.param import count
    from lm.inspect.cost import training_flops
    from lm.train.config import check
    from lm.train.setup import assemble

    check(config)
    chip, pod = chip_of(topology), devices(topology)
    parts = assemble(config, devices=pod)
    model, sharding, state, batch = parts.model, parts.sharding, parts.abstract_state, parts.abstract_batch
    start = time.perf_counter()
    with quiet_stderr():
        compiled = parts.trainer.jitted(state).lower(state, batch).compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    # Donated arguments and the results that take their place share memory ("alias").
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    # One instruction a line: "%name = type{layout} all-gather(...)", asynchronous ones as all-gather-start.
    kinds = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
    found = collections.Counter(m[1] for m in map(kinds.search, (compiled.as_text() or "").splitlines()) if m)
    encoder = batch.get("encoder/tokens")
    row = training_flops(model, batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1])
    return {
        "topology": topology,
        "chips": len(pod),
        "mesh": {} if sharding is None else {k: v for k, v in sharding.mesh.shape.items() if v > 1},
        "parameters": count(model.spec()),
        "tokens_per_step": config.data.batch_size * config.data.length,
        "flops_per_step": row * config.data.batch_size,
        "seconds_per_step_at_peak": row * config.data.batch_size / len(pod) / chip.flops,
        "arguments_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "hbm_bytes": total,
        "hbm_available_bytes": chip.hbm,
        "collectives_in_program": dict(sorted(found.items())),
        "compile_seconds": round(seconds, 1),
        "jax": jax.__version__,
    }


def describe(r: dict[str, Any]) -> str:
    """The report as a person reads it."""
    gib = {k: f"{v / 2**30:.2f} GiB" for k, v in r.items() if k.endswith("_bytes")}
    mesh = " x ".join(f"{k}={v}" for k, v in r["mesh"].items()) or "one device"
    used = r["hbm_bytes"] / r["hbm_available_bytes"]
    collectives = ", ".join(f"{n} {k}" for k, n in r["collectives_in_program"].items()) or "none"
    return "\n".join(
        [
            f"{r['topology']}: {r['chips']} chips, mesh {mesh}; compiled in {r['compile_seconds']} s with JAX "
            f"{r['jax']}",
            f"model        {r['parameters']:,} parameters, {r['tokens_per_step']:,} tokens a step",
            f"HBM per chip {gib['hbm_bytes']} of {gib['hbm_available_bytes']} ({used:.0%}): state and batch "
            f"{gib['arguments_bytes']}, temporaries {gib['temporary_bytes']}, program {gib['code_bytes']}",
            f"compute      {r['flops_per_step']:.3g} FLOPs a step, {1e3 * r['seconds_per_step_at_peak']:.1f} ms at "
            f"peak",
            f"collectives  {collectives} (in the program text; those inside loops run once per trip)",
        ]
    )


def main(argv: list[str]) -> None:
    from tpu import topology  # noqa: F401  sets up this process before jax starts  # isort: skip
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.show_config import size_notes

    config = read_config(CONFIG.file or DEFAULT)
    for line in override(config, CONFIG.knobs) + size_notes(config):
        print(line, file=sys.stderr)
    result = report(config, TOPOLOGY.value)
    print(describe(result))
    if OUT.value:
        with open(OUT.value, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    cli.run(main, usage="[--topology=v5e:4x4] [--config=FILE] [--config.a.b=VALUE ...]")
