"""Experts against a dense model that does as much work for a token, side by side on this machine.

    python -m benchmarks.experts                # a layer's gradient, then decoding: some minutes on two cores
    python -m benchmarks.experts --quick        # tiny shapes, to see that it runs

A layer: forward and backward passes of a mixture, by each dispatch, over those of one feed-forward layer as wide as a
token's experts together. Decoding: one text, whose prompt has been read, is continued by a model of which every
feed-forward layer is the one or the other. The sides of a comparison take turns, so that a machine whose speed drifts
treats them alike: read the ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.core.ctx import Ctx
from lm.core.param import initialize
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Capacity, Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.transformer import LanguageModel
from lm.zoo.llama import llama
from lm.zoo.mixtral import mixtral


class Shape(NamedTuple):
    d: int
    experts: int
    k: int
    d_ff: int  # of an expert

    def __str__(self) -> str:
        return f"{self.experts} experts, {self.k} of them for a token, d {self.d}, d_ff {self.d_ff}"


class Decoding(NamedTuple):
    layers: int
    heads: int
    vocab: int
    prompt: int
    new: int


COARSE, FINE = Shape(512, 8, 2, 1024), Shape(512, 64, 6, 256)
LAYERS = ((COARSE._replace(d_ff=2048), 4), (FINE, 4), (FINE, 16))  # with rows of LENGTH tokens
LENGTH = 512
DECODING = Decoding(layers=8, heads=8, vocab=8192, prompt=16, new=48)

Sides = Mapping[str, Callable[[], float]]  # each does its work once and says how many seconds that took


def layers(shape: Shape, rows: int, length: int) -> Sides:
    """The gradient by input and parameters of a dense layer, and of mixtures of the same work."""
    expert, router = GatedMLP(shape.d_ff), TopK(shape.k, normalize=1.0)
    sides = {
        "dense": GatedMLP(shape.k * shape.d_ff),
        "dropless": MoE(shape.experts, expert, router, Dropless()),
        "capacity 1.25": MoE(shape.experts, expert, router, Capacity(1.25)),
    }
    x, dy = jax.random.normal(jax.random.key(0), (2, rows, length, shape.d))

    def side(layer: GatedMLP | MoE) -> Callable[[], float]:
        params = initialize(layer.spec(shape.d), jax.random.key(1))
        gradient = jax.jit(jax.grad(lambda p, x: (layer(p, x, Ctx(), None, {})[0] * dy).sum(), argnums=(0, 1)))

        def seconds() -> float:
            start = time.perf_counter()
            jax.block_until_ready(gradient(params, x))
            return time.perf_counter() - start

        return seconds

    return {name: side(layer) for name, layer in sides.items()}


def decoders(shape: Shape, d: Decoding) -> Sides:
    """Continuing one text, by a dense model and by one with experts of the same active size."""
    own = {"layers": d.layers, "d_model": shape.d, "heads": d.heads, "vocab": d.vocab}
    prompt = np.random.default_rng(0).integers(1, d.vocab, size=d.prompt, dtype=np.int32)

    def side(model: LanguageModel) -> Callable[[], float]:
        generate = Generator(model, initialize(model.spec(), jax.random.key(0)))

        def seconds() -> float:
            tokens = generate.stream([prompt], max_new=d.new, sampler=Sampler(temperature=0.0))
            next(tokens)
            start = time.perf_counter()
            for _ in tokens:
                pass
            return time.perf_counter() - start

        return seconds

    return {
        "dense": side(llama(**own, d_ff=shape.k * shape.d_ff)),
        "experts": side(mixtral(**own, d_ff=shape.d_ff, experts=shape.experts, k=shape.k)),
    }


def times(sides: Sides, rounds: int) -> dict[str, tuple[float, float]]:
    """(median seconds, median ratio to the first) of each; all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            own = side()
            if turn:  # the first compiles
                seconds[name].append(own)
    base = next(iter(seconds.values()))
    return {
        name: (statistics.median(own), statistics.median(a / b for a, b in zip(own, base, strict=True)))
        for name, own in seconds.items()
    }


def processor() -> str:
    """What the cores call themselves."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else jax.devices()[0].device_kind


FLAGS = flags.FlagValues()
QUICK = flags.DEFINE_boolean("quick", False, "Tiny shapes, to see that it runs.", flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns that each side takes.", lower_bound=1, flag_values=FLAGS)
ONLY = flags.DEFINE_enum("only", None, ["layers", "decoding"], "One of the two parts.", flag_values=FLAGS)


def main(argv: list[str]) -> None:
    tiny, length, decoding = Shape(16, 4, 2, 8), LENGTH, DECODING
    mixtures, models = LAYERS, (COARSE, FINE)
    if QUICK.value:
        mixtures, models, length, decoding = ((tiny, 2),), (tiny,), 16, Decoding(2, 2, 64, 4, 4)
    console = Console()
    console.print(f"{processor()}; medians of {ROUNDS.value} interleaved rounds, float32")

    def compare(what: str, shape: Shape, sides: Sides) -> None:
        table = Table(what, "ms", "of dense", box=None, pad_edge=False)
        for name, (seconds, ratio) in times(sides, ROUNDS.value).items():
            table.add_row(name, f"{1e3 * seconds:,.1f}", f"{ratio:.2f}")
        console.print(f"\n{shape}")
        console.print(table)

    if ONLY.value != "decoding":
        for shape, rows in mixtures:
            compare(f"forward and backward, {rows} x {length} tokens", shape, layers(shape, rows, length))
    if ONLY.value != "layers":
        for shape in models:
            compare(f"{decoding.new} tokens of one text, {decoding.layers} layers", shape, decoders(shape, decoding))


if __name__ == "__main__":
    cli.run(main, usage="[--quick] [--rounds=N] [--only=layers|decoding]", flag_values=FLAGS, own_code=False)
