"""A step that the TPU compiler made keeps, and moves to the host, what rematerialisation says."""

import json
import sys

import pytest

from tests.tpu.test_compile import needs_libtpu, run

PROGRAM = """
import dataclasses, json, re
from tpu.topology import devices, quiet_stderr  # sets up this process before jax starts
import jax
from lm.core.ctx import Execution
from lm.core.mesh import Sharding, make_mesh
from lm.zoo.llama import llama
from tests.train import tiny

sharding = Sharding(make_mesh({"data": 16}, devices("v5e:4x4")))
model = llama(layers=8, d_model=256, heads=8, kv_heads=8, d_ff=1024, vocab=1024)
for remat, names in (("none", ()), ("full", ()), ("offload", ("layer_input",))):
    trainer, hyper = tiny.trainer(model, sharding, dtype="bfloat16")
    trainer = dataclasses.replace(trainer, execution=Execution(remat, remat_names=names))
    state, at = trainer.abstract(hyper), sharding.named(("batch", None))
    batch = {k: jax.ShapeDtypeStruct((256, 512), v.dtype, sharding=at) for k, v in tiny.batch().items()}
    with quiet_stderr():
        compiled = trainer.jitted(state).lower(state, batch).compile()
    # The inputs of eight layers, sixteen rows on a chip, in the memory that layouts call S(5): the host's.
    waits = re.search(r"bf16\\[8,16,512,256\\]\\{[^}]*S\\(5\\)", compiled.as_text()) is not None
    print(json.dumps([remat, compiled.memory_analysis().temp_size_in_bytes, waits]))
"""


@pytest.mark.slow
@needs_libtpu
def test_what_layers_keep():
    done = run([sys.executable, "-c", PROGRAM])
    assert done.returncode == 0, done.stderr
    found = {remat: (size, waits) for remat, size, waits in map(json.loads, done.stdout.splitlines())}
    assert found["full"][0] < found["none"][0]
    assert {remat for remat, (_, waits) in found.items() if waits} == {"offload"}
