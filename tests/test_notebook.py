"""The quickstart notebook runs from top to bottom, as on a Colab, with few steps."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "notebooks" / "quickstart.ipynb"


@pytest.mark.slow
def test_quickstart_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="needs the dev extra")
    monkeypatch.setenv("STEPS", "4")
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as there
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    assert "bits per byte" in "".join(o.get("text", "") for o in outputs["train"])
    assert any("image/png" in o.get("data", {}) for o in outputs["plot"])
    assert "".join(o.get("text", "") for o in outputs["sample"]).startswith("def main(")
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    everything = str(outputs)
    assert "config.model.layers = 4" in everything and "config.train.steps = 4" in everything
    assert not any(noise in everything for noise in ("FieldReference", "ipywidgets", "Traceback"))


def install(monkeypatch, folder: Path, repository: str = "") -> list[str]:
    """Run the first cell in `folder`, on a machine without lm; returns what pip is asked to install."""
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command[-1]))
    monkeypatch.chdir(folder)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell["source"] for cell in cells if cell["id"] == "install"))
    exec(source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}"), {})
    return asked


def test_the_code_is_installed_from_the_checkout_or_its_address(tmp_path, monkeypatch):
    root = NOTEBOOK.parents[2]
    assert install(monkeypatch, NOTEBOOK.parent) == [str(root)] == install(monkeypatch, root)
    address = "https://example.org/pure-lm.git"
    assert install(monkeypatch, tmp_path, address) == [f"pure-lm @ git+{address}"]
    with pytest.raises(SystemExit, match=r"Write the address that you clone the code from .* REPOSITORY"):
        install(monkeypatch, tmp_path)


def test_notebook_is_committed_without_outputs():
    nbformat = pytest.importorskip("nbformat", reason="needs the dev extra")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
