"""The README's commands and Python, all of them, in order and as they are written, where nothing is installed yet; then
the commands of the other pages, whose Python tests/test_docs.py runs.

Needs the package index (or pip's cache of it). Those that take minutes are shortened by knobs of theirs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, blocks

pytestmark = pytest.mark.slow

# Command -> further words. What the README shows are the same commands without them.
SHORTER = {
    "make quickstart": "KNOBS='--config.train.steps=30 --config.log.eval_batches=2'",
    "make check": "CHECK=tests/core/test_component.py",
    "make test": "TESTS=tests/core/test_component.py",
    "make bench": "KNOBS='--rounds=1 --shapes=tiny'",
    "python -m lm.train": "--config.train.steps=6 --config.log.eval_batches=1 --config.data.length=64",
    "python -m lm.evaluate": "--batches=2",
    "python -m scaling.sweep": "--config.sweep.budgets=1e10,2e10",
    "python -m scaling.coordinates": "--steps=1 --config.model.layers=1 --config.data.length=64",
    "python -m tpu.plan": "--config.model.layers=2 --compile=1",
    "python -m tpu.compile": "--config.model.layers=2 --config.data.length=128",
}


def script() -> str:
    """For bash: the blocks one after the other, those in Python each with the ones before it."""
    lines, python = ["set -eo pipefail"], ""
    readme, *others = PAGES
    more = [(language, block) for page in others for language, block in blocks(page) if language == "bash"]
    for language, block in blocks(readme) + more:
        if language == "python":
            python += block
            block = f"python - <<'END'\n{python}END\n"
        for command, words in SHORTER.items():
            block = re.sub(rf"{re.escape(command)}(?=\s|$)", f"{command} {words}", block)
        lines.append(f"echo '== block {len(lines)}'\n{block}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's files as they are now, those that git ignores left out."""
    folder = tmp_path_factory.mktemp("fresh") / "lm"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)
    return folder


def test_commands(clone):
    # As a user's shell: none of what the tests set for themselves.
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "PYTEST", "PYTHON"))}
    log = clone.parent / "log.txt"
    with log.open("w") as out:
        done = subprocess.run(
            ["bash", "-c", script()],
            cwd=clone,
            env=theirs | {"HOME": str(clone.parent), "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=1800,
            check=False,
        )
    text = log.read_text()
    assert done.returncode == 0, text[-4000:]
    assert "Traceback" not in text, log
    assert "The capital of France is Paris." in text, log
    plots = ("quickstart/loss", "mine/loss", "pair/loss", "eight/loss", "sweep/isoflop", "bench/bench")
    for name in plots:
        assert (clone / "runs" / f"{name}.png").stat().st_size > 10_000, name
    assert (clone / "smollm" / "model.safetensors").stat().st_size > 2e8


def test_no_command_stands_outside_a_block_that_is_run():
    plain = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^    (?:make|python|pip) .*", plain, re.MULTILINE)
