"""The model families.

    python -m lm.zoo                        # all families with their sizes, parameters, FLOPs per token and papers
    python -m lm.zoo llama                  # one family: what is peculiar, sizes, knobs
    python -m lm.zoo llama 3.1-8b           # a model's tree of components, without defaults
    python -m lm.zoo llama 3.1-8b --json > model.json    # the same as JSON, for lm.train --config.model=model.json

No parameter is allocated.
"""

import difflib
import json
import os
import sys

from absl import flags
from rich.console import Console

from lm.commands import cli
from lm.core.component import to_dict
from lm.core.errors import UserError, nearest
from lm.core.param import count
from lm.inspect import tables as show
from lm.zoo.elsewhere import ELSEWHERE
from lm.zoo.registry import FAMILIES, build

FLAGS = flags.FlagValues()  # its own, so that several command lines can be imported into one process
JSON = flags.DEFINE_boolean("json", False, "With a family and a size: the tree as JSON.", flag_values=FLAGS)

USAGE = "[FAMILY [SIZE]] [--json]"


def main(argv: list[str]) -> None:
    names = argv[1:]
    if len(names) > 2 or (JSON.value and len(names) < 2):
        raise UserError("give a family and one of its sizes: python -m lm.zoo FAMILY SIZE [--json]")
    if names and names[0] not in FAMILIES:
        raise UserError(f"family {names[0]!r} is unknown{nearest(names[0], FAMILIES, ELSEWHERE)}")
    if JSON.value:
        print(json.dumps(to_dict(build(chosen(*names))), indent=2))
        return
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    console = Console(width=width, highlight=False, markup=False)
    match names:
        case []:
            everything(console)
        case [name]:
            one_family(console, name)
        case [name, size]:
            one_model(console, name, size)


def chosen(name: str, size: str) -> dict[str, str]:
    """Knobs of a family's size, of which the version may be left out: the first with the rest of the name is meant.
    Raises `UserError`, which names the sizes that come close, where there is none."""
    known = list(FAMILIES[name].sizes)
    if size not in known and (versions := [s for s in known if s.endswith(f"-{size}")]):
        also = f"; there is {' and '.join(versions[1:])} too" if versions[1:] else ""
        print(f"{name} {size}: taken for {versions[0]}{also}", file=sys.stderr)
        size = versions[0]
    if size not in known:
        close = [s for s in known if size.lower() in s] or difflib.get_close_matches(size, known, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; there are {', '.join(known)}"
        raise UserError(f"{name} has no size {size!r}{hint}")
    return {"family": name, "size": size}


def everything(console: Console) -> None:
    width = 2 + max(len(size) for family in FAMILIES.values() for size in family.sizes)
    console.print(f"{len(FAMILIES)} families. {show.FLOPS}.", style="dim")
    console.print()
    console.print(show.columns(width, header=True))
    for name, family in FAMILIES.items():  # each as soon as it is counted
        console.print()
        console.print(show.heading(name, family))
        console.print(show.sizes(family, width))


def one_family(console: Console, name: str) -> None:
    family = FAMILIES[name]
    console.print(show.heading(name, family))
    console.print()
    console.print(show.about(family), soft_wrap=True)
    console.print()
    console.print(show.sizes(family, 2 + max(map(len, family.sizes)), knobs=True))
    console.print()
    console.print(f"{show.FLOPS}.", style="dim")
    console.print(f"Knobs: {show.signature(family)}", style="dim")


def one_model(console: Console, name: str, size: str) -> None:
    model = build(chosen(name, size))
    title = show.heading(f"{name} {size}", FAMILIES[name])
    console.print(title)
    console.print(f"{count(model.spec()):,} parameters, {show.short(show.flops_per_token(model))}FLOPs per token")
    console.print()
    console.print(show.tree(model, console.width))
    console.print()
    console.print(f"{show.FLOPS}.", style="dim")


if __name__ == "__main__":
    cli.run(main, arguments=3, usage=USAGE, flag_values=FLAGS, own_code=False)
