"""The pages are true: their Python runs, what they name is there, and they agree with Makefile, layout, workflows."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest
import yaml

import lm.objectives as OBJECTIVES
from lm.core.component import known
from tests.pages import PAGES, ROOT, blocks, module_of
from tests.test_layout import LEVELS, RANK
from tests.train.tiny import one_device

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
PATH = re.compile(r"(?<![\w/.:-])(?:lm|scaling|tpu|experiments|tests|docs|benchmarks|\.github|\.ci)/[\w./-]*\w")
NAME = re.compile(r"`((?:lm|scaling|tpu|tests)(?:\.\w+)+)(?:\([^`]*\))?`")


def test_python_runs(tmp_path):
    """All pages but the README, whose Python runs where its commands have installed what it needs."""
    names = [name for name, page in zip(IDS, PAGES, strict=True) if name != "README.md" and module_of(page).strip()]
    assert "docs/tour.md" in names
    done = subprocess.run(
        [sys.executable, "-m", "tests.pages", *names],
        cwd=ROOT,
        env=one_device() | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == names


def test_python_keeps_its_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```python\na = 1\n\nb = 2\n```\n\nb\n\n```bash\nls\n```\n\n```python\nc = a + b\n```\n")
    assert [line.lineno for line in ast.parse(module_of(page)).body] == [4, 6, 16]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_are_of_a_kind_that_is_run(page):
    """`text` is what no program reads; a command stands in a bash block, which tests/test_readme.py runs."""
    assert {language for language, _ in blocks(page)} <= {"python", "bash", "text"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_paths_and_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```(?:bash|python).*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    links = {(page.parent / link).resolve() for link in LINK.findall(text) if "://" not in link}
    paths = {ROOT / path for path in PATH.findall(prose)}
    assert not [str(path) for path in sorted(links | paths) if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_names_are_defined(page):
    """`lm.train.step.Trainer.step` is a method of a class of a module, `lm.zoo` a package."""
    names = sorted(set(NAME.findall(page.read_text(encoding="utf-8"))))
    assert not [name for name in names if not defined(name)]


def defined(name: str) -> bool:
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:n])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_dir() and n == len(parts):
            return True
        if file.is_file():
            body = ast.parse(file.read_text(encoding="utf-8")).body
            return all((body := body_of(body, part)) is not None for part in parts[n:])
    return False


def body_of(body: list[ast.stmt], name: str) -> list[ast.stmt] | None:
    """What a name of a module, or of a class, holds; None if there is no such name."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node.body
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return []
    return None


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("lm.zoo", True),
        ("lm.zoo.llama.llama", True),
        ("lm.train.step.Trainer.step", True),
        ("lm.train.step.Trainer.stop", False),
        ("lm.core.rules.RULES", True),
        ("lm.nowhere", False),
        ("lm.train.nowhere", False),
    ],
)
def test_what_counts_as_defined(name, there):
    assert defined(name) == there


def test_the_floors_are_drawn_as_they_are():
    drawn = next(text for language, text in blocks(ROOT / "docs/design.md") if language == "text")
    floors = [re.findall(r"\S+", re.split(r" {2,}(?=\S+ \S)", floor)[0]) for floor in re.split(r"\n -+\n", drawn)]
    known = [
        {p for p in level if (ROOT / p.replace(".", "/")).is_dir() or (ROOT / f"{p.replace('.', '/')}.py").is_file()}
        for level in LEVELS
    ]
    assert len(floors) == len(LEVELS)
    for names, packages in zip(reversed(floors), known, strict=True):
        assert {name for name in names if name in RANK} == packages


def test_every_objective_is_in_the_table():
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(OBJECTIVES.__path__, "lm.objectives.")]
    here = {c.__name__ for c in known() if c.__module__ in {m.__name__ for m in modules} and hasattr(c, "examples")}
    first = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "objectives.md").read_text(), flags=re.M)
    assert here and not here - {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_targets_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {t for page in PAGES for t in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named <= targets and "check" in named
    chosen = re.search(r"^CHECK := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert chosen and all((ROOT / path).exists() for path in chosen[1].replace("\\\n", " ").split())


def test_workflows_call_what_the_ci_calls():
    flow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    called = {step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step}
    (targets,) = re.findall(r"^for target in (.*); do$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert called == {f"make {target}" for target in targets.split()}
    assert flow["jobs"]["quick"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
