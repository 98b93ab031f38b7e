"""Layouts do what they are for: what a device holds, and what is sent, by the compiled program."""

import functools
import re
from typing import NamedTuple

import jax
import pytest

from lm.core.mesh import Sharding, make_mesh
from lm.core.param import count
from lm.core.rules import PRESETS
from lm.zoo.llama import llama
from tests.train import tiny

D, HIDDEN, LAYERS, ROWS, LENGTH = 64, 256, 2, 16, 64
MODEL = llama(layers=LAYERS, d_model=D, heads=4, kv_heads=4, d_ff=HIDDEN, vocab=128)
N = count(MODEL.spec())


class Compiled(NamedTuple):
    """Bytes on each device, and the results of all-gathers: inside the loop over microbatches, and outside."""

    arguments: int
    temporaries: int
    in_loop: list[tuple[int, ...]]
    once: list[tuple[int, ...]]


@functools.cache
def compiled(
    sizes: tuple[tuple[str, int], ...], rules: str = "default", zero: int = 3, accumulate: int = 1
) -> Compiled:
    sharding = Sharding(make_mesh(dict(sizes)), PRESETS[rules], zero)
    trainer, hyper = tiny.trainer(MODEL, sharding, accumulate=accumulate)
    like, at = tiny.batch(), sharding.named(("batch", None))
    batch = {k: jax.ShapeDtypeStruct((ROWS, LENGTH), v.dtype, sharding=at) for k, v in like.items()}
    state = trainer.abstract(hyper)
    program = trainer.jitted(state).lower(state, batch).compile()
    memory, found = program.memory_analysis(), {True: [], False: []}
    for line in program.as_text().splitlines():
        if gather := re.search(r"= f32\[([\d,]+)\]\S* all-gather\(", line):
            found["/while/" in line].append(tuple(map(int, gather[1].split(","))))
    return Compiled(memory.argument_size_in_bytes, memory.temp_size_in_bytes, found[True], found[False])


@pytest.mark.parametrize(("zero", "held"), [(1, 1 + 2 / 8), (2, 1 + 2 / 8), (3, 3 / 8)])
def test_what_a_device_holds(zero, held):
    """Of N parameters and two moments of Adam on eight devices; norms' gains and the batch are small beside them."""
    batch = 5 * ROWS * LENGTH * 4 / 8
    assert compiled((("fsdp", 8),), zero=zero, accumulate=2).arguments == pytest.approx(4 * N * held + batch, rel=0.01)


def test_what_is_summed_and_gathered():
    one, two, three = (compiled((("fsdp", 8),), zero=zero, accumulate=2) for zero in (1, 2, 3))
    saved = one.temporaries - two.temporaries
    assert saved == pytest.approx(4 * N * 7 / 8, rel=0.25), "sums of gradients are cut in eight"
    weights = [(D, HIDDEN), (HIDDEN, D)]
    layers = {tuple(n for n in shape if n > 1) for shape in three.in_loop}  # narrow parts go as [out, in], without a 1
    assert {*weights} <= layers, "each microbatch gathers a layer's weights"
    stacked = [(LAYERS, *w) for w in weights]
    for state in (one, two):
        assert all(w in state.once for w in stacked), "new parameters are gathered once, all layers at a time"
        assert not set(state.in_loop) & {*weights, *((1, *w) for w in weights), *stacked}


def test_the_sequence_is_cut_between_sub_layers():
    """Of what layers keep for the backward pass, on four devices a quarter; gathered at the doors of sub-layers."""
    sizes = (("data", 2), ("tensor", 4))
    whole, cut = compiled(sizes), compiled(sizes, "sequence")
    stream = (ROWS // 2, LENGTH, D)
    assert cut.temporaries < 0.75 * whole.temporaries
    gathered = [x for x in cut.in_loop if x == stream]
    assert stream not in whole.in_loop and len(gathered) >= 4, "into both sub-layers, and back"
