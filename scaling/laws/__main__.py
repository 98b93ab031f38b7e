"""The laws that `python -m scaling.fit --law=NAME` knows, and the constants that were published of them.

    python -m scaling.laws               all: what each predicts, from which columns
    python -m scaling.laws repeated      one: what it says, and its published constants

Which for what: docs/howto/choose-a-law.md. One of your own is a file more: docs/howto/add-a-law.md.
"""

import inspect
from collections.abc import Sequence

from absl import flags
from rich.console import Console
from rich.table import Table

from lm.commands import cli
from lm.core.errors import UserError, nearest

from . import LAWS, PUBLISHED

USAGE = "[NAME]"


def main(argv: Sequence[str] | None = None) -> None:
    console = Console(highlight=False, markup=False, width=120)

    def show(rest: list[str]) -> None:
        if len(rest) == 1:
            console.print(table())
        elif len(rest) == 2:
            console.print(described(rest[1]), soft_wrap=True)
        else:
            raise UserError(f"give one law, not {len(rest) - 1}: python -m scaling.laws {USAGE}")

    cli.run(show, arguments=99, usage=USAGE, flag_values=flags.FlagValues(), argv=argv, own_code=False)


def table() -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("law", "formula", "from columns", "predicts"):
        shown.add_column(name)
    for name, law in LAWS.items():
        shown.add_row(name, law.formula, ", ".join(law.reads), law.target)
    return shown


def described(name: str) -> str:
    """One law: its docstring, what it needs, and its published constants by name."""
    if name not in LAWS:
        raise UserError(f"no law {name!r}{nearest(name, LAWS)}; python -m scaling.laws lists them")
    law = LAWS[name]
    error = "the logarithm" if law.residual == "log" else "the value"
    lines = [
        inspect.getdoc(law) or law.formula,
        "",
        f"columns   {', '.join(law.reads)}",
        f"predicts  {law.target}; its errors are of {error}, delta {law.delta:g}",
    ]
    for by, known in PUBLISHED.items():
        if type(known) is law:
            constants = ", ".join(f"{constant} {value:.6g}" for constant, value in known.constants().items())
            lines.append(f"{by:20} {constants}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
