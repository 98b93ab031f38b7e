"""The notebooks run from top to bottom, as on a Colab, with few steps."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs_of(name, monkeypatch):
    """Of each cell, by its id."""
    nbformat = pytest.importorskip("nbformat", reason="needs the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the dev extra")
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as there
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return {cell.id: cell.get("outputs", []) for cell in notebook.cells}


def text(outputs):
    return "".join(o.get("text", "") for o in outputs)


@pytest.mark.slow
def test_quickstart_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "4")
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    outputs = outputs_of("quickstart.ipynb", monkeypatch)
    assert "bits per byte" in text(outputs["train"])
    assert any("image/png" in o.get("data", {}) for o in outputs["plot"])
    assert text(outputs["sample"]).startswith("def main(")
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    everything = str(outputs)
    assert "config.model.layers = 4" in everything and "config.train.steps = 4" in everything
    assert not any(noise in everything for noise in ("FieldReference", "ipywidgets", "Traceback"))


@pytest.mark.slow
def test_scaling_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setenv("RESAMPLES", "20")
    outputs = outputs_of("scaling.ipynb", monkeypatch)
    assert "runs, loss in nats/byte" in text(outputs["records"])
    fitted = text(outputs["fit"])
    assert "approach 3, chinchilla" in fitted and "approach 2, parabola" in fitted and "Chinchilla(E=" in fitted
    for cell in ("isoflop", "held", "plan"):
        assert any("image/png" in o.get("data", {}) for o in outputs[cell]), cell
    assert "inside their 90 % interval" in text(outputs["held"])
    assert "and these" in text(outputs["plan"]) and (tmp_path / "out" / "plan" / "plan.json").exists()
    assert "to train it: python -m lm.train" in text(outputs["predict"]) and "d_model" in text(outputs["predict"])
    assert "How to spend compute" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Traceback" not in str(outputs)


def install(monkeypatch, folder: Path, name: str, repository: str = "") -> list[str]:
    """Run the first cell in `folder`, on a machine without lm; returns what pip is asked to install."""
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command[-1]))
    monkeypatch.chdir(folder)
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell["source"] for cell in cells if cell["id"] == "install"))
    exec(source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}"), {})
    return asked


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_the_code_is_installed_from_the_checkout_or_its_address(name, tmp_path, monkeypatch):
    assert install(monkeypatch, FOLDER, name) == [str(ROOT)] == install(monkeypatch, ROOT, name)
    address = "https://example.org/pure-lm.git"
    assert install(monkeypatch, tmp_path, name, address) == [f"pure-lm @ git+{address}"]
    with pytest.raises(SystemExit, match=r"Write the address that you clone the code from .* REPOSITORY"):
        install(monkeypatch, tmp_path, name)


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_notebook_is_committed_without_outputs(name):
    nbformat = pytest.importorskip("nbformat", reason="needs the dev extra")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
