"""The order in which the tokens of a row stand while a tower reads them.

On several devices (`lm.parallel.context`) a tower that does not mind reads them in zig-zag order, which gives all
devices as much to do. What comes out stands in the order of the row again, so that heads and objectives never know.

A layer that does not mind says so by `any_order`: whether it makes the same of each token wherever in the row it and
the others stand, given what `lm.core.rows.Tokens` tells of them. One that shifts or convolves, counts tokens or keeps a
state does mind, and so does one that draws random bits, which belong to places. Who says nothing is taken to mind."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from lm.core.component import components
from lm.core.ctx import Ctx, constrain
from lm.core.mesh import mesh_around
from lm.core.rows import Mask
from lm.parallel.context import axes_of, ways_of
from lm.parallel.zigzag import in_row_order, zigzagged

if TYPE_CHECKING:
    from lm.model.transformer import Transformer

Array = jax.Array


def any_order(part: Any) -> bool:
    """What a component says of itself, or of its parts."""
    return getattr(part, "any_order", False)


def lopsided(tower: "Transformer") -> bool:
    """Whether tokens at one end of a row see more than those at the other: under a mask that is open on one side."""
    bands = [part.band() for part in components(tower.stack) if isinstance(part, Mask)]
    return any((low is None) != (high is None) for low, high in bands)


def in_zigzag(tower: "Transformer", ids: Array, ctx: Ctx, cache: Any) -> tuple[Array, Ctx, Callable[[Array], Array]]:
    """ids [B, S] and ctx as the tower shall read them, and what gives its states [B, S, D] back in the order of the
    row. As they are, without several devices that share a row, or where order matters."""
    ways, execution = ways_of(ctx), ctx.execution
    chosen = execution.zigzag and execution.context in ("auto", "ring")
    fits = ways > 1 and ids.shape[1] % (2 * ways) == 0 and cache is None and not ctx.record
    layers = [layer for group in tower.stack.segments for layer in getattr(group, "pattern", (group,))]
    if not (chosen and fits and all(map(any_order, (tower.embed, *layers))) and lopsided(tower)):
        return ids, ctx, lambda x: x
    sharding = ctx.sharding
    assert sharding is not None  # ways

    def moved(name: str, x: Array) -> Array:
        if x.ndim != 2 or x.shape[1] != ids.shape[1] or "/" in name:  # of another text
            return x
        return constrain(zigzagged(constrain(x, ctx, "batch", None), ways), ctx, "batch", "seq")

    def restored(x: Array) -> Array:
        x = in_row_order(x, mesh_around(sharding.mesh), axes_of(sharding)[1], ways)
        return constrain(x, ctx, "batch", "seq", "embed")

    rows = {name: moved(name, x) for name, x in ctx.rows.items()}
    return moved("tokens", ids), ctx.replace(rows=rows, zigzag=True), restored
