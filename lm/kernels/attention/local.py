"""For kernels that XLA cannot cut over devices: each device attends for rows and heads of its own."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.core.mesh import Sharding, mesh_around
from lm.core.rows import Tokens
from lm.core.rules import as_axes
from lm.kernels.place import Place

Array = jax.Array
# (q [B, H, S, d], k [B, K, T, d], v [B, K, T, w], q_tokens, k_tokens, sinks [H] or None) -> [B, H, S, w]
Local = Callable[[Array, Array, Array, Tokens, Tokens, Array | None], Array]


def supports(q: Array, k: Array, place: Place) -> str | None:
    """What stands against rows and heads being shared out there."""
    if not place.partitioned:
        return None
    if place.sharding is None:
        return "XLA cannot cut it over devices"
    rows, heads, seq = place.sharding.spec(("batch", "heads", "seq"))
    if seq is not None:
        return "sequences are cut over devices"
    for name, size, over in (("rows", q.shape[0], rows), ("heads", q.shape[1], heads)):
        if size % (ways := _ways(place.sharding, over)):
            return f"{size} {name} do not spread over {ways} devices"
    return None


def _ways(sharding: Sharding, over: str | tuple[str, ...] | None) -> int:
    return math.prod(sharding.mesh.shape[axis] for axis in as_axes(over))


def on_each_device(
    attend: Local,
    q: Array,
    k: Array,
    v: Array,
    q_tokens: Tokens,
    k_tokens: Tokens,
    sinks: Array | None,
    place: Place,
) -> Array:
    """`attend` within `jax.shard_map`, by the rules for `batch` and `heads`. Key heads go with the queries that read
    them; where there are fewer of them than devices, some devices have the same ones."""
    if not place.partitioned or place.sharding is None:
        return attend(q, k, v, q_tokens, k_tokens, sinks)
    by_head = place.sharding.spec(("batch", "heads", "seq", None))
    times = math.lcm(k.shape[1], _ways(place.sharding, by_head[1])) // k.shape[1]
    k, v = (jnp.repeat(x, times, axis=1) if times > 1 else x for x in (k, v))
    by_row = PartitionSpec(by_head[0])
    taken = set(jax.sharding.get_abstract_mesh().manual_axes)
    return jax.shard_map(
        attend,
        mesh=mesh_around(place.sharding.mesh),
        in_specs=(by_head, by_head, by_head, by_row, by_row, PartitionSpec(by_head[1])),
        out_specs=by_head,
        axis_names=set(place.sharding.mesh.axis_names) - taken,
        check_vma=False,  # kernels need not know that they run on one device of several
    )(q, k, v, q_tokens, k_tokens, sinks)
