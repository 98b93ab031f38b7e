"""Attention over a context axis, compiled for TPUs at lengths that no chip could hold by itself."""

import json
import math
import re

import pytest

from tests.tpu.test_compile import compile_for, needs_libtpu

LONG = """
from lm.train.config import default
from lm.zoo.registry import knobs

def get_config():
    config = default()
    with config.unlocked():
        config.model = knobs("llama", layers=2, d_model=512, heads=4, kv_heads=2, head_dim=128, d_ff=1024, vocab=512)
    config.data.length, config.data.batch_size = 131072, 1
    config.train.update(dtype="bfloat16", remat="full")
    config.mesh.update(data=1, context=16)
    return config
"""


def elements(shape: str) -> int:
    return math.prod(map(int, shape.split(","))) if shape else 1


@pytest.mark.slow
@needs_libtpu
def test_a_ring_holds_its_part_of_a_long_row(tmp_path):
    """128k tokens on 16 chips: neither keys nor values nor scores of whole rows are anywhere, and what a chip needs
    besides its part of the activations grows with them."""
    needed = {}
    for length in (65536, 131072):
        out, hlo = tmp_path / f"{length}.json", tmp_path / f"{length}.txt"
        knob = f"--config.data.length={length}"
        done = compile_for("v5e:4x4", tmp_path, knob, f"--out={out}", f"--hlo={hlo}", text=LONG)
        assert done.returncode == 0, done.stderr
        needed[length] = json.loads(out.read_text())["memory"]["analysis"]["temporaries"]
        program = hlo.read_text()
        assert "collective-permute" in program
        for shape in re.findall(r"= \(?\w+\[([\d,]*)\].* all-gather(?:-start)?\(", program):
            states = shape.endswith(",512")  # which the loss reads
            assert states or elements(shape) < length * 2 * 128, f"{shape}: keys or values of a whole row"
        largest = max(map(elements, re.findall(r"\w+\[([\d,]+)\]", program)))
        assert largest <= length * 512, "no more than the states of a whole row"
    assert needed[131072] < 2.2 * needed[65536]
    assert needed[131072] < 40 * 4 * 131072 // 16 * 512  # of the residual stream in float32
