"""Weights that many chips share out, compiled for TPUs: how they are gathered, and their gradients added up."""

import json
import sys

import pytest

from tests.tpu.test_compile import needs_libtpu, run

CUBE = """
import json
from tpu.topology import devices, quiet_stderr

import jax, jax.numpy as jnp
from lm.core.fsdp import fully_sharded
from lm.core.leaf import dot
from lm.core.mesh import Sharding, make_mesh
from lm.core.param import Param, abstract
from tpu import hlo
from tpu.work import work

LAYERS, WIDTH, HIDDEN, CHIPS = 3, 512, 1024, 64
sharding = Sharding(make_mesh({"fsdp": CHIPS}, devices("v5p:4x4x4")))
up, down = Param((WIDTH, HIDDEN), ("embed", "mlp")), Param((HIDDEN, WIDTH), ("mlp", "embed"))
layer = {"up": up, "down": down}

def loss(stacks, x):
    def one(x, own):
        own = fully_sharded(own, layer, sharding, jnp.bfloat16)
        return x + dot(jnp.tanh(dot(x, own["up"])), own["down"]), None
    return jnp.square(jax.lax.scan(jax.checkpoint(one), x, stacks)[0].astype(jnp.float32)).sum()

def stacked(p):
    return jax.ShapeDtypeStruct((LAYERS, *p.shape), jnp.float32, sharding=sharding.named((None, *p.axes)))

stacks = {name: stacked(p) for name, p in layer.items()}
x = jax.ShapeDtypeStruct((128, 16, WIDTH), jnp.bfloat16, sharding=sharding.named(("batch", None, None)))
step = jax.jit(jax.grad(loss), out_shardings={name: s.sharding for name, s in stacks.items()})
with quiet_stderr():
    text = step.lower(stacks, x).compile().as_text()
done = work(hlo.read(text), CHIPS).collectives
print(json.dumps({"kinds": sorted({c.kind for c, _ in done}), "sent": sum(n * c.sent for c, n in done), "text": text}))
"""


@pytest.mark.slow
@needs_libtpu
def test_a_cube_of_chips_sends_each_weight_three_times(tmp_path):
    """To the forward pass, to the backward pass, and its gradient back. Along all three dimensions of a torus at once
    the compiler would send it twice as often (`lm.core.mesh.halves_of`)."""
    done = run([sys.executable, "-c", CUBE])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kinds"] == ["all-gather", "reduce-scatter"]
    assert found["sent"] < 1.1 * 3 * 2 * 3 * 2 * 512 * 1024  # three layers of two matrices, of two bytes a number
    copies = [line for line in found["text"].splitlines() if " copy(" in line and "= f32[3," in line]
    assert not copies, "parts of eight columns are not laid out anew"
