"""What is settled before JAX starts."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm.core import startup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """One with libtpu, whose TPUs and plugins a test may choose."""
    find = importlib.util.find_spec
    here = {"libtpu"}
    known = ("libtpu", "jax_plugins")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in here if name in known else find(name))
    monkeypatch.setattr(startup.importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(startup, "PCI", tmp_path)
    for name in ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # what a test leaves there goes with it
        monkeypatch.delenv(name)
    return here


def test_without_a_tpu_none_is_looked_for(machine):
    startup.prepare()
    assert os.environ.pop("JAX_PLATFORMS") == "cpu" and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_with_a_tpu_jax_chooses(machine, tmp_path):
    (tmp_path / "0000:00:05.0").mkdir()
    (tmp_path / "0000:00:05.0/vendor").write_text("0x1ae0\n")
    startup.prepare()
    assert "JAX_PLATFORMS" not in os.environ


@pytest.mark.parametrize("other", ["plugin", "no libtpu"])
def test_other_accelerators_are_left_alone(machine, other):
    machine.add("jax_plugins") if other == "plugin" else machine.clear()
    startup.prepare()
    assert "JAX_PLATFORMS" not in os.environ


def test_what_is_set_stays(machine, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    startup.prepare()
    assert (os.environ["JAX_PLATFORMS"], os.environ["TF_CPP_MIN_LOG_LEVEL"]) == ("tpu", "0")


def test_it_does_not_start_jax():
    program = "import sys; from lm.core import startup; startup.prepare(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
