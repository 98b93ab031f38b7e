"""The project's pages, and their Python, which `python -m tests.pages PAGE ...` runs: the blocks of a page in order, as
one module; page after page, in one process."""

import re
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tpu/README.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def module_of(page: Path) -> str:
    """A page's Python, each line where it is in the page, so that a traceback names it."""
    text = page.read_text(encoding="utf-8")
    kept = [""] * (text.count("\n") + 1)
    for found in BLOCK.finditer(text):
        if found[1] == "python":
            first = text[: found.start(2)].count("\n")
            lines = found[2].splitlines()
            kept[first : first + len(lines)] = lines
    return "\n".join(kept)


def main(pages: list[str]) -> None:
    for name in pages:
        module = types.ModuleType(re.sub(r"\W", "_", name))
        module.__file__ = name
        sys.modules[module.__name__] = module
        print(name, flush=True)
        exec(compile(module_of(ROOT / name), name, "exec"), module.__dict__)


if __name__ == "__main__":
    main(sys.argv[1:])
