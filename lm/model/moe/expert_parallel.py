"""Expert parallelism: the experts of a layer on several devices, of which each dispatches tokens of its own.

This is no property of a model: any dispatch works on any mesh, and computes what it computes on one device. Rules say
along which mesh axes experts lie, and rows.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.fsdp import on_entry, whole_inside
from lm.core.mesh import mesh_around
from lm.core.param import Tree
from lm.model.moe.dispatch import Dispatch, Experts
from lm.parallel.exchange import Axes, RaggedExchange, from_owners, to_owners

Array = jax.Array

ROOM = 2  # rows that a device takes from the others at once, over those of its own; it seldom gets more


def dispatched(dispatch: Dispatch, experts: Experts, x: Array, routing: Any, ctx: Ctx) -> tuple[Array, Array]:
    """`dispatch(experts, x, routing, ctx)` on the mesh of ctx: each device dispatches rows of its own, which by the
    protocol do not depend on each other, and has the experts' work done where they lie (`ExchangedExperts`). Mesh axes
    that cut neither rows nor experts (`tensor`, `context`) go on working by the rules.

    Rows lie along the axes of `batch` and those of `expert`: owners that had the same rows would do the same work.

    Raises `UserError` when experts do not spread evenly."""
    sharding = ctx.sharding
    owners = () if sharding is None else sharding.over("expert")
    devices = () if sharding is None else tuple(dict.fromkeys((*sharding.over("batch"), *owners)))
    if sharding is None or not devices:
        return dispatch(experts, x, routing, ctx)
    if experts.number % (ways := sharding.ways("expert")):
        raise UserError(
            f"{experts.number} experts do not spread evenly over {ways} devices along mesh axes {', '.join(owners)}: "
            f"take a size that divides {experts.number}"
        )
    native = sharding.mesh.devices.flat[0].platform != "cpu"
    inside = Ctx(execution=ctx.execution)

    def here(params: Tree, x: Array, routing: Any) -> tuple[Array, Array]:
        params = whole_inside(params, x.dtype, manual, once=True)
        all_here = dataclasses.replace(experts, params=params)
        exchanged = ExchangedExperts(experts.expert, params, experts.number, owners, devices, native)
        return dispatch(exchanged if owners else all_here, x, routing, inside)

    rows = len(x)
    fill = -rows % math.prod(sharding.mesh.shape[axis] for axis in devices)
    x, routing = jax.tree.map(lambda v: jnp.pad(v, ((0, fill),) + ((0, 0),) * (v.ndim - 1)), (x, routing))
    by_row = PartitionSpec(devices)
    ones = {axis for axis, size in sharding.mesh.shape.items() if size == 1}  # left over, they would bar TPU kernels
    manual = frozenset(ones.union(devices))
    y, dropped = jax.shard_map(
        here,
        mesh=mesh_around(sharding.mesh),
        in_specs=(on_entry(experts.params, PartitionSpec(owners), manual), by_row, by_row),
        out_specs=by_row,
        axis_names=manual,
        check_vma=False,  # dispatches and experts need not know that they run on one device of several
    )(experts.params, x, routing)
    return y[:rows], dropped[:rows]


@dataclasses.dataclass(frozen=True)
class ExchangedExperts(Experts):
    """All experts as a device sees them that holds some: rows go to the owners of their experts and come back. `params`
    are those of its own experts, [E / P, ...]. To be called by all devices at once, within `jax.shard_map`."""

    owners: Axes  # the mesh axes along which experts lie
    devices: Axes  # all those that cut rows
    native: bool

    @property
    def own(self) -> Experts:
        return Experts(self.expert, self.params, self.number // jax.lax.axis_size(self.owners))

    def __call__(self, x: Array, ctx: Ctx, sizes: Array | None = None) -> Array:
        """As many rows for each expert, x [E, ..., D]: an all-to-all there and one back. `sizes` are not made use of:
        between the rows of several devices some are left free."""
        rows = x.reshape(self.number, -1, x.shape[-1])
        return from_owners(self.own(to_owners(rows, self.owners), ctx), self.owners).reshape(x.shape)

    def grouped(self, x: Array, sizes: Array, ctx: Ctx) -> Array:
        """As many rows for each expert as there are, x [N, D].

        All devices could send all of their rows to the same one. Room for that would be P times what is used when loads
        are even, so an owner takes `ROOM` times N rows at once. If some owner has more, there are more rounds, which
        else are skipped; their activations are computed again in the backward pass instead of kept."""
        exchange = RaggedExchange.of(sizes, self.owners, self.native)
        ways = jax.lax.axis_size(self.owners)
        room = min(ROOM, ways) * len(x)

        def one_round(start: Array | int, x: Array, params: Tree) -> Array:
            part, own = exchange.window(start, room), dataclasses.replace(self.own, params=params)
            return part.back(own.grouped(part.there(x, room), part.received(), ctx), len(x))

        y = one_round(0, x, self.params)
        if room == ways * len(x):
            return y
        most = jax.lax.pmax(exchange.most(), self.devices)  # all devices agree on whether there is a round
        again = jax.checkpoint(one_round)

        def another(y: Array, start: Array) -> tuple[Array, None]:
            return y + jax.lax.cond(start < most, again, lambda *_: jnp.zeros_like(y), start, x, self.params), None

        return jax.lax.scan(another, y, jnp.arange(room, ways * len(x), room))[0]
