"""The planner: what is searched, estimated and told, on simulated devices; and against the TPU compiler."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lm.core.errors import UserError
from lm.core.mesh import make_mesh
from lm.core.rules import STAGE
from lm.train.chips import TPUS
from lm.train.config import default
from lm.train.setup import assemble
from lm.zoo.registry import knobs
from tests.tpu.test_compile import needs_libtpu, run
from tpu.estimate import Estimator
from tpu.layouts import Layout, Search, meshes
from tpu.memory import Model
from tpu.pods import pod, topology_of

ROOT = Path(__file__).parents[2]


def config(family="llama", length=64, rows=16, **own):
    made = default()
    shape = {"layers": 4, "d_model": 128, "heads": 4, "d_ff": 384, "vocab": 512}
    with made.unlocked():
        made.model = knobs(family, **(shape | own))
        made.data.length, made.data.batch_size, made.train.dtype = length, rows, "bfloat16"
    return made


def parts_of(made):
    return assemble(Layout((), 1, "none", 1).applied(made), devices=jax.devices()[:1])


def search(made):
    parts = parts_of(made)
    found = Search(made, parts.model, parts.program.spec(), jax.devices())
    return parts, {layout: sharding for sharding, layouts in found for layout in layouts}


def test_every_product_of_axes_is_looked_at_once():
    made = config()
    model = parts_of(made).model
    found = [(tuple(mesh.items()), stages) for mesh, stages in meshes(model, made, 8)]
    assert len(found) == len(set(found)) == math.comb(3 + 3, 3)  # 8 = 2^3 over data, fsdp, tensor, stage
    assert all(math.prod(size for _, size in mesh) * stages == 8 for mesh, stages in found)
    made = config("mixtral", experts=4)
    axes = {axis for mesh, _ in meshes(parts_of(made).model, made, 8, slices=2) for axis in mesh}
    assert axes == {"slice", "data", "fsdp", "expert", "tensor"}
    assert "context" in {axis for mesh, _ in meshes(model, config(length=16384), 8) for axis in mesh}


def test_what_is_impossible_says_why():
    _, found = search(config(rows=4, heads=2, kv_heads=2))
    refused = {str(layout): str(error) for layout, error in found.items() if isinstance(error, UserError)}
    assert "batch_size=4 in 1 part(s) does not divide over" in refused["fsdp=8, remat none"]
    stages = [error for layout, error in refused.items() if f"{STAGE}=8" in layout]
    assert "4 repeats of a layer group do not spread evenly over 8" in stages[0]
    assert "data=2 x fsdp=2 x tensor=2, remat full" in map(str, found)


def test_a_layout_is_what_its_knobs_say():
    layout = Layout((("fsdp", 2), ("tensor", 2)), 2, "full", 4)
    made = layout.applied(config())
    assert {k: v for k, v in made.mesh.items() if v != 1} == {"fsdp": 2, "tensor": 2}
    for path, value in layout.knobs.items():
        section, _, name = path.partition(".")
        assert made[section][name] == value


def test_memory_is_divided_as_the_mesh_divides_it():
    made = config()
    parts, found = search(made)
    model = Model.of(parts, ("full",))
    whole = model.on(None).need("none", 16)
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.abstract_state.params))
    assert whole.parameters == whole.gradients == state and 2 * state <= whole.optimizer < 2.1 * state
    of = {str(layout): model.on(s) for layout, s in found.items() if not isinstance(s, UserError)}
    by_rows = of["data=8, remat none"].need("none", 16)
    assert (by_rows.parameters, by_rows.optimizer) == whole[:2]
    assert by_rows.saved == whole.saved // 8 and by_rows.batch == whole.batch // 8
    fsdp = of["fsdp=8, remat none"]
    shared = fsdp.need("none", 16)
    assert shared.parameters < whole.parameters / 7 and shared.saved == by_rows.saved
    assert fsdp.need("full", 16).saved < shared.saved / 4
    halves = fsdp.need("none", 16, 2)
    assert halves.saved == shared.saved // 2 and halves.gradients == 2 * shared.gradients
    first, second = (of[f"fsdp=8, remat none, ZeRO {zero}"].need("none", 16) for zero in (1, 2))
    assert first.parameters == second.parameters == whole.parameters and first.optimizer == shared.optimizer
    assert first.gradients == whole.gradients > 7 * second.gradients == 7 * shared.gradients


def test_a_pipeline_keeps_what_its_schedule_does():
    made = config(rows=32)
    parts, found = search(made)
    model = Model.of(parts, ("full",))
    need = {
        str(layout): model.on(sharding).need("none", 32, walk=layout.walk)
        for layout, sharding in found.items()
        if layout.stages == 4 and layout.mesh == (("fsdp", 2),) and layout.remat == "none" and layout.zero == 3
    }
    few, many = (need[f"stage=4 x fsdp=2, remat none, {n} microbatches by gpipe"] for n in (4, 16))
    assert many.saved < few.saved, "idle ticks keep as much as others"
    assert need["stage=4 x fsdp=2, remat none, 16 microbatches by 1f1b"].saved < 0.5 * many.saved


def test_time_grows_with_what_is_exchanged_again_computed_or_idle():
    made = config(layers=8, rows=64)
    parts, found = search(made)
    estimator = Estimator.of(parts, TPUS["v5e"])

    def time(mesh: str, remat: str = "none"):
        (layout,) = [k for k in found if str(k) == f"{mesh}, remat {remat}"]
        return estimator.time(layout, found[layout], 8, 2**20)

    plain, again = time("fsdp=8"), time("fsdp=8", "full")
    assert plain.compute == again.compute and again.recomputation == pytest.approx(plain.compute / 3)
    assert plain.bubble == plain.layers == 0 and time("fsdp=4 x tensor=2").layers > 0
    assert time("tensor=8").layers > time("fsdp=4 x tensor=2").layers
    few, many = (time("stage=4 x fsdp=2", f"none, {n} microbatches by gpipe") for n in (4, 16))
    assert few.bubble == pytest.approx(0.75 * plain.compute) == 4 * many.bubble
    assert "idle stages" in few.against(plain)


@pytest.mark.parametrize(
    ("name", "topology"),
    [("v5p-256", "v5p:4x4x8"), ("v5e-16", "v5e:4x4"), ("v5litepod-8", "v5e:2x4"), ("v4-64", "v4:2x4x4")],
)
def test_pods_by_the_names_of_their_cloud(name, topology):
    assert topology_of(name) == topology_of(topology) == topology
    assert pod(topology).accelerator == name.replace("v5e", "v5litepod")


@pytest.mark.parametrize("name", ["v5p-100", "v5q-16", "v5p", "v5p-3", "16"])
def test_what_is_no_pod_is_told(name):
    with pytest.raises(UserError, match=re.escape(repr(name))):
        topology_of(name)


def test_a_mesh_that_is_not_there_is_no_search():
    with pytest.raises(UserError, match="does not divide over the 8 devices"):
        make_mesh({"fsdp": 16})


SMALL = """
from lm.train.config import default
from lm.zoo.registry import knobs

def get_config():
    config = default()
    with config.unlocked():
        config.model = knobs("llama", layers=4, d_model=256, heads=2, d_ff=512, vocab=512)
    config.data.length, config.data.batch_size = 256, 32
    config.train.dtype = "bfloat16"
    return config
"""


@pytest.mark.slow
@needs_libtpu
def test_the_best_layouts_are_compiled_and_the_others_told_why_not(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(SMALL)
    done = run(
        [
            *(sys.executable, "-m", "tpu.plan", "--chips=v5e-4", f"--config={file}"),
            *("--compile=2", "--show=3", f"--out={tmp_path}/plan.json"),
        ]
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert re.search(r"^ +1\. \S.*ms a step \(estimate .*\), MFU \d+%", told, re.MULTILINE)
    assert "not compiled, by estimate:" in told and re.search(r"to use it: --config\.mesh\.\w+=\d", told)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert len(plan["compiled"]) == 2 and len(plan["estimated"]) > 50
    first, second = (row["report"]["time"]["step"] for row in plan["compiled"])
    assert first <= second


def test_a_pod_that_is_none_is_told_in_a_line():
    done = subprocess.run([sys.executable, "-m", "tpu.plan", "--chips=v5z-4"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "'v5z-4' names no TPUs" in done.stderr


@needs_libtpu
def test_memory_is_estimated_within_a_tenth_of_what_the_compiler_needs():
    """Of ten programs that `python -m tests.tpu.memory_cases --write` compiled."""
    done = run([sys.executable, "-m", "tests.tpu.memory_cases"])
    assert done.returncode == 0, done.stderr
    ratios = [float(line.split("|")[-2]) for line in done.stdout.splitlines()]
    assert len(ratios) == 10 and all(0.9 < ratio < 1.1 for ratio in ratios), done.stdout


@pytest.mark.slow
@needs_libtpu
def test_the_compiler_needs_what_is_recorded(tmp_path):
    """Of one of them, so that a new compiler is noticed."""
    file = tmp_path / "one.py"
    file.write_text(ONE)
    done = run([sys.executable, str(file)])
    assert done.returncode == 0, done.stderr
    used, recorded = map(int, done.stdout.split())
    assert used == pytest.approx(recorded, rel=0.03)


ONE = """
import json
from tests.tpu.memory_cases import CASES, RECORD, config_of, report
print(report(config_of(CASES[0]), CASES[0].topology).memory.used, json.loads(RECORD.read_text())[str(CASES[0])])
"""
