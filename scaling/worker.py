"""Runs one unit of a sweep: trunks that are trained together. `python -m scaling.sweep` starts it, here or on other
machines; by hand it is of use to see why a unit fails.

    python -m scaling.worker --out=runs/sweep --unit=3

--out is the folder of a sweep, with plan.json and units.json. What has a record is not done again.
"""

import os
import threading
from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

OUT = flags.DEFINE_string("out", None, "Folder of the sweep.")
UNIT = flags.DEFINE_integer("unit", None, "Which of units.json, from 0 on.", lower_bound=0)
TIED = flags.DEFINE_boolean("tied", False, "End when standard input does, with whoever holds its other end.")
CORES = flags.DEFINE_list("cores", [], "Numbers of the CPU cores to keep to; all by default.")

USAGE = "--out=DIR --unit=N"


def main(argv: list[str]) -> None:
    if OUT.value is None or UNIT.value is None:
        raise UserError(cli.lacking("out" if OUT.value is None else "unit", usage=USAGE))
    if CORES.value:
        os.sched_setaffinity(0, map(int, CORES.value))  # before JAX counts them
    if TIED.value:
        threading.Thread(target=_end_with_input, daemon=True).start()
    from .unit import run_unit  # JAX starts here

    run_unit(Path(OUT.value).expanduser(), UNIT.value)


def _end_with_input() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a process that ends would wait for
        pass
    os._exit(1)


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
