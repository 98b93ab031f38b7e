"""Runs as every format so far wrote them (`make.py`): opened, evaluated and gone on from, they say what they said."""

import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lm.core.formats import CHECKPOINT
from lm.train.config_file import read_config
from lm.train.loop import train

HERE = Path(__file__).parent
FORMATS = sorted(HERE.glob("format-*"))
RUNS = [
    # One of the oldest format, which goes through every upgrade, and the one kind that it did not know.
    pytest.param(run, marks=() if run.name == "adapted" or run == FORMATS[0] / "dense" else pytest.mark.slow)
    for folder in FORMATS
    for run in sorted(folder.iterdir())
    if run.is_dir()
]

spec = importlib.util.spec_from_file_location("compat_make", HERE / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(params=RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def frozen(request, tmp_path, monkeypatch):
    """A copy of a run, beside the text that it was trained on."""
    shutil.copytree(request.param, tmp_path / "run")
    shutil.copy(request.param.parent / "corpus.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("run")


def test_every_format_is_there():
    assert [folder.name for folder in FORMATS] == [f"format-{n}" for n in range(CHECKPOINT.number + 1)]


def test_a_frozen_run_opens_and_goes_on(frozen):
    expected = np.load(frozen / "expected.npz")
    found = make.answers(frozen)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=2e-4, rtol=1e-4)
    np.testing.assert_array_equal(found["written"], expected["written"])

    config, said = read_config(frozen), io.StringIO()
    with config.unlocked():
        config.train.steps += make.MORE
    validation = train(config, frozen, Console(file=said, width=500))["loss"]
    assert f"resumed at step {make.STEPS} with train.steps 6 -> 9\n" in said.getvalue()  # and no other change
    np.testing.assert_allclose(make.losses(frozen, make.STEPS), expected["losses"], rtol=1e-3)
    np.testing.assert_allclose(validation, expected["validation"], rtol=1e-4)
