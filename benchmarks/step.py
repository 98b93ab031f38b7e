"""Ways to run the training step, side by side on this machine.

    python -m benchmarks.step                   # a GPT of six layers, d 256: some minutes on two cores
    python -m benchmarks.step --quick           # a tiny shape, to see that it runs

All variants compute the same step of the same model and take turns within one run, so that a machine whose speed drifts
treats them alike. Read the ratios. Peak is the float32 matmul rate measured in the same run."""

import statistics
import time

import jax
import jax.numpy as jnp
from absl import flags
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.core.component import to_dict
from lm.core.ctx import Execution
from lm.core.walk import Unrolled
from lm.inspect.cost import training_flops
from lm.objectives.causal import NextToken
from lm.objectives.token_loss import TokenLoss
from lm.train.config import default
from lm.train.hardware import peak_flops
from lm.train.setup import assemble
from lm.zoo.gpt2 import gpt2

VARIANTS = {  # name -> (dtype, execution, positions per chunk of the cross-entropy)
    "scan, float32": ("float32", Execution(), 128),
    "unrolled": ("float32", Execution(walk=Unrolled()), 128),
    "scan, remat full": ("float32", Execution(remat="full"), 128),
    "scan, remat dots": ("float32", Execution(remat="dots"), 128),
    "plain attention": ("float32", Execution(attention="reference"), 128),
    "whole logits": ("float32", Execution(), 1 << 20),
    "scan, bfloat16": ("bfloat16", Execution(), 128),
    "unrolled, bfloat16": ("bfloat16", Execution(walk=Unrolled()), 128),
}


FLAGS = flags.FlagValues()
QUICK = flags.DEFINE_boolean("quick", False, "A tiny shape, to see that it runs.", flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each variant takes.", lower_bound=1, flag_values=FLAGS)


def main(argv: list[str]) -> None:
    shape = {"layers": 2, "d_model": 64, "heads": 2} if QUICK.value else {"layers": 6, "d_model": 256, "heads": 4}
    length, rows, vocab = (64, 4, 512) if QUICK.value else (256, 8, 8192)
    model = gpt2(**shape, vocab=vocab, context=length)
    flops = training_flops(model, length) * rows
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, vocab)
    batch = {"tokens": tokens, "targets": tokens, "weights": jnp.ones(tokens.shape), "segments": jnp.ones_like(tokens)}

    steps, states = {}, {}
    for name, (dtype, run, chunk) in VARIANTS.items():
        config = default()
        config.train.dtype = dtype
        objective = NextToken(TokenLoss(chunk=chunk))
        parts = assemble(config, model=model, objective=objective, execution=run, sharding=None)
        states[name] = parts.trainer.init(parts.hyper)
        steps[name] = parts.trainer.jitted(states[name])
        states[name], _ = steps[name](states[name], batch)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS.value):
        for name, step in steps.items():
            start = time.perf_counter()
            states[name], metrics = step(states[name], batch)
            jax.block_until_ready((states[name], metrics))
            seconds[name].append(time.perf_counter() - start)

    peak, _ = peak_flops("float32")
    first = next(iter(VARIANTS))
    table = Table("variant", "tokens/s", "of float32 peak", f"speed against {first}", box=None, pad_edge=False)
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[first], times, strict=True))
        median = statistics.median(times)
        table.add_row(name, f"{rows * length / median:,.0f}", f"{flops / median / peak:.0%}", f"{ratio:.2f}")
    console = Console()
    console.print(
        f"{to_dict(model)['type']} {shape}, {rows} rows of {length}, vocabulary {vocab}; float32 matmul peak "
        f"{peak / 1e9:,.0f} GFLOP/s; medians of {ROUNDS.value} interleaved rounds"
    )
    console.print(table)


if __name__ == "__main__":
    cli.run(main, usage="[--quick] [--rounds=N]", flag_values=FLAGS, own_code=False)
