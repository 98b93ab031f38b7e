"""Writes what each family's first size is made of to tests/zoo/rendered, which test_rendered.py compares:
`python -m tests.zoo.render` (all families) or `python -m tests.zoo.render llama gpt2`."""

import sys
from pathlib import Path
from typing import Any

from lm.inspect.tables import plain
from lm.zoo.registry import FAMILIES, build

FOLDER = Path(__file__).parent / "rendered"


TINY = {"tiny": {"layers": 3, "d_model": 16, "heads": 2, "d_ff": 24}}  # of families whose sizes are not dense


def first_size(family: str) -> tuple[str, dict[str, Any]]:
    """The name and the knobs of a family's first size."""
    return next(iter((FAMILIES[family].sizes or TINY).items()))


def rendered(family: str) -> str:
    """The tree of the family's first size, defaults left out."""
    size, knobs = first_size(family)
    return f"{family} {size}\n{plain(build({'family': family, **knobs}))}"


def main(families: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for family in families or FAMILIES:
        (FOLDER / f"{family}.txt").write_text(rendered(family), encoding="utf-8")
    for path in FOLDER.glob("*.txt"):
        if path.stem not in FAMILIES:
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
