"""Compiling for a pod, with the real TPU compiler, in a process of its own (libtpu must not meet this one's JAX)."""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tpu import cases

REPO = Path(__file__).parents[2]

LIBTPU = Path(sys.prefix) / "libtpu"  # where `make test` puts it
needs_libtpu = pytest.mark.skipif(
    not LIBTPU.is_dir() and importlib.util.find_spec("libtpu") is None,
    reason='libtpu is not installed (make test does it, or pip install "pure-lm[tpu]")',
)
TINY = """
from lm.train.config import default
from lm.zoo.registry import knobs

def get_config():
    config = default()
    with config.unlocked():
        config.model = knobs("gpt2", layers=2, d_model=256, heads=2, vocab=512, context=128)
    config.data.length, config.data.batch_size = 128, 32
    config.mesh.fsdp = 4
    return config
"""


FILES = {"out": "report.json", "plot": "report.png", "hlo": "hlo.txt", "executable": "step.pickle"}
SPARSE = """
from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict, with_knobs
from lm.model.moe.dispatch import Capacity, Dropless
from lm.train.config import default
from lm.zoo.switch import switch_decoder

def get_config():
    config = default()
    model = switch_decoder(layers=4, d_model=256, heads=2, d_ff=512, experts=8, vocab=512)
    model = with_knobs(model, lambda name, value: DISPATCH if name == "dispatch" else value)
    with config.unlocked():
        config.model = ConfigDict(to_dict(model))
    config.data.length, config.data.batch_size = 128, 32
    config.train.dtype = "bfloat16"
    config.mesh.expert = 4
    return config
"""


def compile_for(topology, tmp_path, *flags, text=TINY):
    config = tmp_path / "tiny.py"
    config.write_text(text)
    command = [sys.executable, "-m", "tpu.compile", f"--topology={topology}", f"--config={config}", *flags]
    return run(command)


def run(command, timeout=1500):  # alone it takes a tenth of that
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")}
    env["PYTHONPATH"] = os.pathsep.join([str(REPO), str(LIBTPU)])
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)


def compare_with_records(*names):
    """What these programs need now with what they did, in tests/golden/tpu, and with what MaxText's do."""
    done = run([sys.executable, "-m", "tests.tpu.cases", *names], 3600)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(record) for record in found] == [[name] for name in names]
    worse = {
        name: [*cases.worse(of, cases.read(name)), *cases.beyond_maxtext(name, of)]
        for record in found
        for name, of in record.items()
    }
    assert not any(worse.values()), f"{worse}; if that must be: python -m tests.tpu.cases --write {' '.join(names)}"


@needs_libtpu
def test_small_programs_need_no_more_than_they_did():
    compare_with_records(*cases.names(cases.FAST))


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("name", cases.names(cases.SLOW))
def test_large_programs_need_no_more_than_they_did(name):
    compare_with_records(name)


def test_what_is_compared_has_a_record():
    compared = {*cases.names(cases.FAST), *cases.names(cases.SLOW)}
    recorded = {path.stem for path in cases.GOLDEN.glob("*.json")}
    assert compared <= recorded <= cases.CASES.keys()


def test_what_is_worse_is_told():
    record = cases.read("small-dense")
    assert not list(cases.worse(record, record))
    grown = record | {"flops": 2 * record["flops"], "sent": {"fsdp": 3 * sum(record["sent"].values())}, "fits": False}
    assert [line.split()[0] for line in cases.worse(grown, record)] == ["flops:", "sent:", "it"]
    assert not list(cases.worse(record, grown | {"fits": True}))


@pytest.mark.slow
@needs_libtpu
def test_train_step_compiles_for_sixteen_chips(tmp_path):
    files = {flag: tmp_path / name for flag, name in FILES.items()}
    done = compile_for("v5e:4x4", tmp_path, "--price=1.2", *(f"--{flag}={path}" for flag, path in files.items()))
    assert done.returncode == 0, done.stderr
    assert "HBM          fits" in done.stdout and not done.stderr.strip()
    report = json.loads(files["out"].read_text())
    assert report["chips"] == 16 and report["mesh"] == {"data": 4, "fsdp": 4}
    kinds = {(t["kind"], t["axes"]) for t in report["collectives"]}
    assert ("all-gather", "fsdp") in kinds  # parameters are sharded
    memory, state = report["memory"], 4 * report["parameters"]  # float32
    kind = memory["arguments"]
    assert state / 4 <= kind["parameters"] < state / 4 * 1.1 and kind["optimizer"] == 2 * kind["parameters"] + 4
    assert memory["analysis"]["arguments"] < memory["used"] < memory["available"] and memory["fits"]
    assert 1 <= report["flops"] / report["model_flops"] < 1.1  # nothing but attention is computed twice
    assert report["dollars_per_trillion_tokens"] == pytest.approx(16 * 1.2 / 3600 / report["tokens_per_second"] * 1e12)
    assert files["plot"].read_bytes().startswith(b"\x89PNG") and "ENTRY" in files["hlo"].read_text()
    payload, inputs, outputs = pickle.loads(files["executable"].read_bytes())  # as deserialize_and_load takes them
    assert len(payload) > 2**20 and min(inputs.num_leaves, outputs.num_leaves) > 50


@pytest.mark.slow
@needs_libtpu
def test_between_slices_only_sums_of_gradients_go(tmp_path):
    out = tmp_path / "report.json"
    done = compile_for("v5e:4x4", tmp_path, "--slices=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert (report["chips"], report["slices"], report["mesh"]["slice"]) == (32, 2, 2)
    across = [t for t in report["collectives"] if t["axes"].startswith("dcn")]
    assert {(t["kind"], t["axes"]) for t in across} == {("all-reduce", "dcn (slice)")}
    # Each chip the gradients that are its own, in float32; of two slices all-reduced, as many bytes as there are.
    own = report["parameters"] * 4 / 16
    assert own <= sum(t["bytes"] for t in across) < 6 * own
    assert report["time"]["network"]["dcn"] > 0


@pytest.mark.slow
@needs_libtpu
def test_what_does_not_fit_is_reported_all_the_same(tmp_path):
    out = tmp_path / "report.json"
    done = compile_for("v5e:4x4", tmp_path, "--config.data.batch_size=262144", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "DOES NOT FIT" in done.stdout
    memory = json.loads(out.read_text())["memory"]
    assert not memory["fits"] and memory["used"] > memory["available"] and memory["largest"]


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(("dispatch", "kind"), [("Capacity()", "all-to-all"), ("Dropless()", "ragged-all-to-all")])
def test_tokens_go_to_experts_and_not_experts_to_tokens(tmp_path, dispatch, kind):
    """Two exchanges in the forward pass, two in the backward one. Neither weights nor a batch are ever gathered."""
    text, out = SPARSE.replace("DISPATCH", dispatch), tmp_path / "report.json"
    done = compile_for("v5e:4x4", tmp_path, f"--out={out}", f"--hlo={tmp_path}/hlo.txt", text=text)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["mesh"] == {"data": 4, "expert": 4}
    runs = {t["kind"]: t["runs"] for t in report["collectives"]}
    assert runs[kind] >= 4 * 2  # in each of the two layers that have experts
    gathered = re.findall(r"= (.*) all-gather(?:-start)?\(", (tmp_path / "hlo.txt").read_text())
    assert all("bf16" not in result and "f32" not in result for result in gathered)  # numbers of rows, at most


GROUPED = """
import jax, jax.numpy as jnp
from tpu.topology import devices, quiet_stderr
from lm.core.ctx import Ctx
from lm.core.mesh import Sharding, make_mesh
from lm.kernels.grouped_matmul.select import grouped_matmul
from lm.kernels.grouped_matmul.spec import RowGroups

ctx = Ctx(sharding=Sharding(make_mesh({"data": 1}, devices("v5e:4x4")[:1])))

def loss(x, w, sizes):
    return jnp.square(grouped_matmul(x, (w,), RowGroups(sizes), ctx)[0].astype(jnp.float32)).sum()

for rows, groups, width, out in ((512, 8, 512, 256), (77, 5, 100, 300), (1, 3, 24, 40)):
    shapes = ((rows, width), jnp.bfloat16), ((groups, width, out), jnp.float32), ((groups,), jnp.int32)
    x, w, sizes = (jax.ShapeDtypeStruct(*s, sharding=ctx.sharding.named([None] * len(s[0]))) for s in shapes)
    with quiet_stderr():
        text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, w, sizes).compile().as_text()
    print(text.count('custom_call_target="tpu_custom_call"'), "ragged" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_the_matrices_of_groups_are_multiplied_by_a_kernel(tmp_path):
    """At awkward sizes too: one for the product, one for each gradient."""
    done = run([sys.executable, "-c", GROUPED])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["3 False"] * 3


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "flags", "names"),
    [
        ("v9z:4x4", (), "v9z"),
        ("v5e:4x4", ("--config.mesh.tensor=3",), "tensor=3"),
        ("v5e:nonsense", (), "nonsense"),
        ("v5e:4x4", ("--mesh=fsdp",), "fsdp=16,tensor=4"),
        ("v5e:4x4", ("--step=prefill", "--length=4096"), "128 positions"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, topology, flags, names):
    done = compile_for(topology, tmp_path, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and names in done.stderr and done.stderr.count("\n") == 1
