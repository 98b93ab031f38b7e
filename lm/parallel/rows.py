"""What devices do for tokens of their own, with weights that they share out."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from lm.core.fsdp import on_entry, whole_inside
from lm.core.mesh import Sharding, mesh_around
from lm.core.param import Tree
from lm.core.rules import as_axes

Array = jax.Array


def summed_over_tokens(
    f: Callable[..., tuple[Array, Any]], sharding: Sharding | None, params: Tree, x: Array, *tokens: Array
) -> tuple[Array, Any]:
    """f(sharding, params, x, *tokens) -> (a sum over tokens, figures of each), for x [B, S, ...] and further arrays
    [B, S]: each device does it for tokens of its own, where no `sharding` holds. Parameters are gathered once before,
    and their gradients added up once after. Left to XLA's partitioner, a loop over tokens would add them up between
    devices in each iteration.

    Where tokens do not spread evenly, this is f itself."""
    if sharding is None:
        return f(sharding, params, x, *tokens)
    taken = jax.sharding.get_abstract_mesh().manual_axes
    batch, seq = (
        tuple(axis for axis in as_axes(axes) if axis not in taken)
        for axes in sharding.spec(("batch", "seq", "vocab"))[:2]
    )
    ways = [math.prod(sharding.mesh.shape[axis] for axis in axes) for axes in (batch, seq)]
    if math.prod(ways) == 1 or any(size % n for size, n in zip(x.shape, ways, strict=False)):
        return f(sharding, params, x, *tokens)
    manual = frozenset((*batch, *seq))
    each = PartitionSpec(batch or None, seq or None)

    def here(params: Tree, x: Array, *tokens: Array) -> tuple[Array, Any]:
        total, figures = f(None, whole_inside(params, x.dtype, manual), x, *tokens)
        return jax.lax.psum(total, (*batch, *seq)), figures

    return jax.shard_map(
        here,
        mesh=mesh_around(sharding.mesh),
        in_specs=(on_entry(params, PartitionSpec(), manual), each, *(each for _ in tokens)),
        out_specs=(PartitionSpec(), each),
        axis_names=manual,
        check_vma=False,  # a head need not know that it runs on one device of several
    )(params, x, *tokens)
