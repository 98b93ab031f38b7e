"""The wheel holds what a user needs and nothing else, and its command lines start outside the checkout.

Needs the package index (or pip's cache of it): the environment is made from nothing, as a user's is.
"""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lm", "scaling", "tpu", "experiments")
OURS = ("lm", "lm.train", "lm.generate", "lm.evaluate", "lm.clean", "lm.zoo", "lm.hub")
CLIS = (*OURS, "scaling.fit", "scaling.sweep", "scaling.export", "tpu.compile", "tpu.plan", "tpu.plan", "tpu.launch")


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=900, check=False)


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    check(run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel and its core dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    check(run(python, "-m", "pip", "install", "-q", wheel, cwd=folder))
    return python


def test_wheel_holds_the_packages_whole(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in held} == set(PACKAGES)
    wanted = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in held if name.endswith(".py")} == wanted


def test_wheel_says_that_it_is_typed(wheel):
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_carries_the_licence(wheel):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("cli", CLIS)
def test_help_outside_the_checkout(cli, python, tmp_path):
    done = run(python, "-m", cli, "--help", cwd=tmp_path)
    check(done)
    assert done.stdout.strip()


def test_the_script_hands_on(python, tmp_path):
    script = python.with_name("lm")
    done = run(script, "--help", cwd=tmp_path)
    check(done)
    for command in OURS[1:]:
        assert f"{command.replace('.', ' ')} " in done.stdout
    done = run(script, "zoo", "llama", "3.2-1b", cwd=tmp_path)
    check(done)
    assert "1,235,814,400 parameters" in done.stdout
    done = run(script, "generate", "--help", cwd=tmp_path)
    check(done)
    assert done.stdout.startswith("usage: lm generate ")
    assert run(script, "generat", cwd=tmp_path).returncode == 2
