"""Parts of the training step on this machine: a layer's forward and backward pass, and matrix products by layout.

    python -m benchmarks.parts                          # the layers of `make bench`, about two minutes on two cores
    python -m benchmarks.parts --shapes=tiny --rounds=1

To compare two versions of the code, run it in each in turn, several times. Processor time, which other work on the
machine disturbs less, stands beside time on the clock: both in milliseconds, of the fastest round."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from jax import lax
from rich.console import Console
from rich.table import Table

from benchmarks.protocol import SHAPES, Shape
from lm.commands import cli
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import initialize
from lm.zoo.gpt2 import gpt2

DTYPES = ("float32", "bfloat16")
ROW_MAJOR, FIRST_TURNED, SECOND_TURNED = ((1,), (0,)), ((0,), (0,)), ((1,), (1,))
LAYOUTS = {"a b": ROW_MAJOR, "a^T b": FIRST_TURNED, "a b^T": SECOND_TURNED}  # of a and b as they are stored


class Fastest(NamedTuple):
    clock: float  # seconds
    processor: float


def fastest(f: Callable[..., Any], args: tuple, rounds: int) -> Fastest:
    f = jax.jit(f)
    jax.block_until_ready(f(*args))
    found = []
    for _ in range(rounds):
        clock, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(f(*args))
        found.append((time.perf_counter() - clock, time.process_time() - processor))
    return Fastest(*(min(column) for column in zip(*found, strict=True)))


def layer(s: Shape, dtype: str, rounds: int) -> Fastest:
    """Of a GPT's layer, its gradient by parameters and inputs included."""
    block = gpt2(layers=1, d_model=s.d, heads=s.heads, vocab=2, context=s.length).body.stack.segments[0].pattern[0]
    params = initialize(block.spec(s.d), jax.random.key(0))
    x, dy = jax.random.normal(jax.random.key(1), (2, s.rows, s.length, s.d)).astype(dtype)
    rows = {"positions": jnp.broadcast_to(jnp.arange(s.length), (s.rows, s.length))}

    def both(params: Any, x: jax.Array, dy: jax.Array) -> Any:
        y, back = jax.vjp(lambda params, x: block(params, x, Ctx(rows=rows), None)[0], params, x)
        return y, back(dy)

    return fastest(both, (params, x, dy), rounds)


def product(m: int, k: int, n: int, layout: str, dtype: str, rounds: int) -> float:
    """GFLOP/s by the clock, of a product [m, k] [k, n] that is summed in float32."""
    axes = LAYOUTS[layout]
    a = jax.random.normal(jax.random.key(0), (k, m) if axes[0] == (0,) else (m, k)).astype(dtype)
    b = jax.random.normal(jax.random.key(1), (n, k) if axes[1] == (1,) else (k, n)).astype(dtype)

    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)

    return 2 * m * k * n / fastest(dot, (a, b), rounds).clock / 1e9


FLAGS = flags.FlagValues()
SIZES = flags.DEFINE_list("shapes", "d256,d512", f"Models, of {', '.join(SHAPES)}.", flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each part runs.", lower_bound=1, flag_values=FLAGS)


def main(argv: list[str]) -> None:
    if unknown := [s for s in SIZES.value if s not in SHAPES]:
        raise UserError(f"--shapes: {unknown[0]} is unknown{nearest(unknown[0], SHAPES)}")
    layers = Table("layer", "dtype", "clock, ms", "processor, ms", box=None, pad_edge=False)
    products = Table("product", "dtype", *LAYOUTS, title="GFLOP/s", box=None, pad_edge=False)
    for shape in SIZES.value:
        s = SHAPES[shape]
        for dtype in DTYPES:
            took = layer(s, dtype, ROUNDS.value)
            layers.add_row(shape, dtype, f"{took.clock * 1e3:.1f}", f"{took.processor * 1e3:.1f}")
            for m, k, n in ((s.tokens, s.d, 4 * s.d), (s.d, s.tokens, 4 * s.d), (4 * s.d, s.tokens, s.d)):
                rates = (product(m, k, n, layout, dtype, ROUNDS.value) for layout in LAYOUTS)
                products.add_row(f"[{m}, {k}] [{k}, {n}]", dtype, *(f"{rate:,.0f}" for rate in rates))
    console = Console()
    console.print(layers)
    console.print(products)


if __name__ == "__main__":
    cli.run(main, usage="[--shapes=d256,d512] [--rounds=N]", flag_values=FLAGS, own_code=False)
