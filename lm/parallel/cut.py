"""A computation cut in two where it walks the layers of its one group that repeats: what is before, what is behind.

Whoever walks layers sees what goes into them and says what comes out, so both halves are had by calling all of it, once
with a walk that stops and once with one that goes on. No model and no objective needs to know."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from lm.core.ctx import Ctx
from lm.core.param import Tree
from lm.core.walk import Repeat, Repeats, Scan, Walk


class WalkCall(NamedTuple):
    """What a walk is called with."""

    repeat: Repeat
    repeats: Repeats
    carry: Tree
    ctx: Ctx


def before(call: Callable[[Walk], object]) -> WalkCall:
    """What `call(walk)` passes to its walk at the group that repeats; what follows is not traced."""
    try:
        call(_Stop())
    except _Reached as reached:
        return reached.entry
    raise AssertionError("no layers repeat")  # configs are checked


@dataclasses.dataclass(frozen=True, eq=False)
class Resumed(Walk):
    """With this walk a computation goes on behind the group that repeats, from what its layers gave. What it computes
    ahead of them is dead code, but for what is read behind them too."""

    carry: Tree
    aux: Tree

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: Ctx) -> tuple[Tree, list | None, Tree]:
        if repeats.number == 1:
            return Scan()(repeat, repeats, carry, ctx)
        return self.carry, None, self.aux


class _Reached(Exception):
    def __init__(self, entry: WalkCall) -> None:
        super().__init__()
        self.entry = entry


@dataclasses.dataclass(frozen=True)
class _Stop(Walk):
    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: Ctx) -> tuple[Tree, list | None, Tree]:
        if repeats.number == 1:
            return Scan()(repeat, repeats, carry, ctx)
        raise _Reached(WalkCall(repeat, repeats, carry, ctx))
