"""Lower a published model's forward pass and train step on this machine, and say what that took.

    python -m benchmarks.lowering                       # GPT-3 175B
    python -m benchmarks.lowering llama 3.1-405b

No parameter is allocated: the program is traced from shapes, once for each distinct layer, and written as the text that
a compiler takes (StableHLO)."""

import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from lm.commands import cli
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import abstract, count
from lm.model.transformer import Model
from lm.train.config import default
from lm.train.setup import assemble
from lm.zoo.registry import build

LENGTH = 2048


def forward(model: Model) -> tuple[jax.stages.Wrapped, tuple]:
    """The forward pass in bfloat16, and its arguments as shapes."""
    batch = {"tokens": jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)}
    call = jax.jit(lambda params, batch: model(params, batch, Ctx(), jnp.bfloat16))
    return call, (abstract(model.spec()), batch)


def step(model: Model) -> tuple[jax.stages.Wrapped, tuple]:
    """A train step with AdamW, layers recomputed in its backward pass."""
    config = default()
    config.train.update(dtype="bfloat16", remat="full")
    parts = assemble(config, model=model, sharding=None)
    state = parts.abstract_state
    rows: dict[str, Any] = dict.fromkeys(("tokens", "targets", "segments", "positions"), jnp.int32)
    rows["weights"] = jnp.float32
    batch = {name: jax.ShapeDtypeStruct((1, LENGTH), dtype) for name, dtype in rows.items()}
    return parts.trainer.jitted(state), (state, batch)


def main(argv: list[str]) -> None:
    names = argv[1:] or ["gpt3", "175b"]
    if len(names) != 2:
        raise UserError(f"give a family and one of its sizes, as llama 3.1-405b, not {' '.join(names)}; see --help")
    family, size = names
    model = build({"family": family, "size": size})
    print(f"{family} {size}: {count(model.spec()):,} parameters")
    for name, make in (("forward pass", forward), ("train step", step)):
        start = time.perf_counter()
        function, args = make(model)
        lowered = function.lower(*args)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines = lowered.as_text().count("\n")
        print(f"{name}: lowered in {seconds:.2f} s, {lines:,} lines of StableHLO; the process peaked at {peak:.2f} GiB")


if __name__ == "__main__":
    cli.run(main, arguments=3, usage="[FAMILY SIZE]", flag_values=flags.FlagValues(), own_code=False)
