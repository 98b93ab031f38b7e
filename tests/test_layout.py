"""The rules of the layout that no single file can show: who may import whom, who may know a family's name."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest first: a package imports its own level and those above it in this list, nothing below.
LEVELS = (
    ("lm.core",),
    ("lm.kernels", "lm.parallel"),
    ("lm.model", "lm.text"),
    ("lm.adapt", "lm.compress"),
    ("lm.data", "lm.objectives", "lm.zoo", "lm.inspect"),
    ("lm.hub",),
    ("lm.runs",),
    ("lm.infer", "lm.evaluate"),
    ("lm.train", "lm.align"),
    ("lm.open",),
    ("lm.commands",),
    ("experiments", "tpu", "scaling"),
)
RANK = {package: rank for rank, level in enumerate(LEVELS) for package in level}
TOP = ("lm", "experiments", "tpu", "scaling")
NEVER = ("tests", "benchmarks")  # not in the wheel

# Unmistakable ones only: `switch`, `opt`, `phi` and `bloom` are also words of the trade.
FAMILIES = (
    "gpt|gptj|neox|bert|roberta|albert|electra|deberta|distilbert|xlnet|t5|mt5|bart|mbart|ul2|palm|glam|gopher|"
    "chinchilla|llama|falcon|mpt|pythia|olmo|mistral|mixtral|gemma|qwen|minicpm|deepseek|pangu"
)
FAMILY = re.compile(rf"(?<![a-z])(?:{FAMILIES})(?![a-z])")
KNOW_FAMILIES = (
    *("lm.zoo", "lm.hub.dialects", "lm.hub.tables"),
    # Names that files give tokenizers, and GGUF architectures.
    *(f"lm.hub.{x}" for x in ("tokenizer_classes", "vocabulary")),
    *(f"lm.hub.{x}" for x in ("gguf", "gguf_tables", "gguf_text")),
)
MAX_LINES = 450
DOORS = (
    "lm.generate",
    "lm.clean",
    "lm.__main__",
)  # as `lm.train.__main__` and its like, of `python -m`: see lm/commands


def sources(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """`lm.model.stack` -> `lm.model`, `scaling.fit` -> `scaling`: the names that LEVELS ranks."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "lm" else parts[0]


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import, those inside functions included."""
    here = module_name(path).split(".")
    if path.name != "__init__.py":
        here = here[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join(parent + (node.module.split(".") if node.module else []))
            if module == "lm":  # `from lm import train` names the package in the list
                yield from ((node.lineno, f"lm.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each identifier and string literal of the code: no comments, no docstrings."""
    tree = parse(path)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in prose:
            line = getattr(node, "lineno", 0)
            for _, value in ast.iter_fields(node):
                if isinstance(value, str):
                    yield line, value


def family_in(text: str) -> str | None:
    """The first family named in an identifier or a literal, be it `relative_bias`, `T5Bias` or `MyBertLayer`."""
    humps = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    found = FAMILY.search(text.lower()) or FAMILY.search(humps.lower())
    return found and found.group()


ALL = [path for top in TOP for path in sources(top)]


def edges() -> Iterator[tuple[str, str, str]]:
    """(`file:line`, importing package, imported package) for each import from one package in another."""
    for path in ALL:
        importer = package_of(module_name(path))
        for line, module in imports(path):
            imported = package_of(module)
            if module.split(".")[0] in (*TOP, *NEVER) and imported != importer:
                yield f"{path.relative_to(ROOT)}:{line}", importer, imported


def test_every_package_has_a_level():
    homeless = {package_of(module_name(path)) for path in ALL} - RANK.keys() - {"lm", *DOORS}
    assert not homeless, f"give {sorted(homeless)} a place in LEVELS"


def test_dependencies_point_down():
    wrong = [
        f"{where}: {importer} imports {imported}"
        for where, importer, imported in edges()
        if RANK.get(imported, len(LEVELS)) > RANK.get(importer, 0)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_packages_import_each_other():
    pairs = {(importer, imported): where for where, importer, imported in edges()}
    wrong = [
        f"{pairs[a, b]}: {a} imports {b}, and {pairs[b, a]}: {b} imports {a}"
        for a, b in pairs
        if a < b and (b, a) in pairs
    ]
    assert not wrong, "\n".join(wrong)


def test_core_stands_on_jax_flax_and_numpy_alone():
    allowed = {"jax", "flax", "numpy", "lm", *sys.stdlib_module_names}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources("lm/core")
        for line, module in imports(path)
        if module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_examples_and_batches_need_no_jax():
    """Nor does anything that they import: data workers start without it."""
    names = [module_name(path) for path in sources("lm/objectives/examples")]
    code = f"import sys; sys.modules['jax'] = None\nfor name in {names}: __import__(name)\nimport lm.data.batches"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_lm_costs_nothing():
    assert (ROOT / "lm/__init__.py").read_bytes() == b""


def test_only_zoo_and_dialects_know_families():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r} names {family_in(text)}"
        for path in sources("lm")
        if not f"{module_name(path)}.".startswith(tuple(f"{known}." for known in KNOW_FAMILIES))
        for line, text in words(path)
        if family_in(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_public_class_name_is_defined_once():
    """Nor does an alias of another module carry it: one name, one thing."""
    defined: dict[str, list[str]] = {}
    for path in sources("lm"):
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    for path in sources("lm"):
        for node in parse(path).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if isinstance(target, ast.Name) and target.id in defined and not target.id.isupper():
                    defined[target.id].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    wrong = [f"{name}: {', '.join(places)}" for name, places in defined.items() if len(places) > 1]
    assert not wrong, "\n".join(wrong)


def test_files_have_one_subject():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources("lm")}
    wrong = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > MAX_LINES]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["gpt2", "T5Bias", "MyBertLayer", "load_llama", "DeBERTa", "org/Llama-2"])
def test_family_names_are_seen(text):
    assert family_in(text)


@pytest.mark.parametrize("text", ["hilbert", "barter", "opt_state", "switch", "best5", "napalm"])
def test_other_words_are_not_families(text):
    assert not family_in(text)
