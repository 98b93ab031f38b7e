"""How a kernel is chosen from a table: the same for all tables."""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from lm.core.errors import UserError, nearest
from lm.kernels.place import Place

log = logging.getLogger(__name__)

# What stands against a place that a kernel was not made for, in a few words; None: it was made for it, and is missed
# where it cannot run.
Home = Callable[[Place], str | None]


class InTable(Protocol):
    """An entry of a table."""

    @property
    def home(self) -> Home | None:
        """None: it runs anywhere."""


K = TypeVar("K", bound=InTable)


def on(platform: str, called: str) -> Home:
    """Of a kernel for one platform."""
    return lambda place: None if place.platform == platform else f"it is for {called}"


on_tpu, on_gpu = on("tpu", "TPUs"), on("gpu", "GPUs")


def choose(
    knob: str,
    of: str,
    table: Mapping[str, K],
    supports: Callable[[K], str | None],
    place: Place,
    name: str | None = None,
    tell: bool = True,
) -> K:
    """The kernel of that name; without one the first that `supports` what is asked for at this place. Where another
    was made for the place and cannot run, that is logged, once for each reason, unless `tell` is off.

    knob: the choice of execution, as errors and the log name it; of: what asks.

    Raises `UserError` for a name that is not in the table, and where the named kernel cannot run."""

    def refuses(kernel: K) -> str | None:
        return (kernel.home and kernel.home(place)) or supports(kernel)

    if name is not None:
        if name not in table:
            raise UserError(f"{knob}={name!r} is no kernel{nearest(name, table)}")
        if reason := refuses(table[name]):
            raise UserError(
                f"{knob}={name!r} cannot run {of} of this model here ({reason}): leave it out, and each gets the best "
                "kernel for it"
            )
        return table[name]
    missed: dict[str, str] = {}
    for found, kernel in table.items():
        if (reason := refuses(kernel)) is None:
            for other, reason in missed.items() if tell else ():
                say_once(f"{knob}: {found} runs in place of {other} ({reason})")
            return kernel
        if kernel.home and not kernel.home(place):
            missed[found] = reason
    raise AssertionError(f"a table needs a kernel that runs everything: {', '.join(table)}")


@functools.cache  # which forgets nothing: a process says the same only once
def say_once(line: str) -> None:
    log.warning(line)
