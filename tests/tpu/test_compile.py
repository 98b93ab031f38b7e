"""Compiling for a pod, with the real TPU compiler, in a process of its own (libtpu must not meet this one's JAX)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

LIBTPU = Path(sys.prefix) / "libtpu"  # where `make test-slow` puts it
needs_libtpu = pytest.mark.skipif(
    not LIBTPU.is_dir() and importlib.util.find_spec("libtpu") is None,
    reason='libtpu is not installed (make test-slow does it, or pip install "pure-lm[tpu]")',
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


def compile_for(topology, tmp_path, *flags):
    config = tmp_path / "tiny.py"
    config.write_text(TINY)
    command = [sys.executable, "-m", "tpu.compile", f"--topology={topology}", f"--config={config}", *flags]
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")}
    env["PYTHONPATH"] = os.pathsep.join([str(REPO), str(LIBTPU)])
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)


@pytest.mark.slow
@needs_libtpu
def test_train_step_compiles_for_sixteen_chips(tmp_path):
    done = compile_for("v5e:4x4", tmp_path, f"--out={tmp_path}/report.json")
    assert done.returncode == 0, done.stderr
    assert "HBM per chip" in done.stdout and not done.stderr.strip()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["chips"] == 16 and report["mesh"] == {"data": 4, "fsdp": 4}
    assert report["collectives_in_program"]["all-gather"] > 0  # parameters are sharded over fsdp
    state = 3 * 4 * report["parameters"]  # parameters and Adam's two moments, float32
    assert state / 4 < report["arguments_bytes"] < state / 4 * 1.2 + 2**20
    assert report["arguments_bytes"] < report["hbm_bytes"] < report["hbm_available_bytes"]


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "flags", "names"),
    [
        ("v9z:4x4", (), "v9z"),
        ("v5e:4x4", ("--config.mesh.tensor=3",), "tensor=3"),
        ("v5e:nonsense", (), "nonsense"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, topology, flags, names):
    done = compile_for(topology, tmp_path, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and names in done.stderr and done.stderr.count("\n") == 1
