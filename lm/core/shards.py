"""How a weight lies that devices share out which have rows of their own, and how it becomes whole (fully sharded data
parallelism: ZeRO stage 3, Rajbhandari et al. 2020, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277).

A weight is gathered where it is multiplied by, in the dtype of the computation, and again in the backward pass; its
gradient is summed straight into the shards. Left to itself, XLA's partitioner may pass them round in a ring, with a
float32 sum of all activations at hand for each product, or add up whole gradients on every device."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lm.core.mesh import lay_out
from lm.core.rules import as_axes

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Shards:
    """The layout of one weight, without the axis of layers. Nothing in it is traced.

    cut: of its part of the state, and of its gradient;
    whole: where it has been gathered, along all mesh axes that cut rows;
    rows: those mesh axes that cut rows and not it;
    owners: those along which experts lie, which stay where they lie;
    sums: the dtype in which devices add up what they have of its gradient."""

    cut: NamedSharding
    whole: NamedSharding
    rows: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    sums: Any = jnp.float32

    def gather(self, w: Array, dtype: Any) -> Array:
        """The whole weight, rounded to `dtype` first: that is what is sent."""
        return lay_out(w.astype(dtype), self.whole)

    def scatter(self, gradient: Array, dtype: Any) -> Array:
        """What devices have of the gradient of the whole weight, added up into the shards."""
        return lay_out(gradient.astype(self.sums), self.cut).astype(dtype)

    # Within `jax.shard_map`, over mesh axes `manual`.

    def within(self, manual: frozenset[str]) -> PartitionSpec:
        """How the part of one device is told from the others'."""
        return PartitionSpec(*(tuple(a for a in axes if a in manual) or None for axes in _each(self.cut)))

    def gathered(self, manual: frozenset[str]) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """(axis of the weight, mesh axes along which it is gathered there), for each that is."""
        gone = (tuple(a for a in cut if a in manual and a not in self.owners) for cut in _each(self.cut))
        return tuple((i, axes) for i, axes in enumerate(gone) if axes)


def _each(sharding: NamedSharding) -> list[tuple[str, ...]]:
    """The mesh axes of each axis."""
    return [as_axes(axes) for axes in sharding.spec]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def whole(w: Array, shards: Shards, dtype: Any) -> Array:
    """The whole weight, for whatever else than a product reads it."""
    return shards.gather(w, dtype)


def _whole(w: Array, shards: Shards, dtype: Any) -> tuple[Array, Array]:
    return shards.gather(w, dtype), jnp.zeros((), w.dtype)


def _part(shards: Shards, dtype: Any, like: Array, gradient: Array) -> tuple[Array]:
    return (shards.scatter(gradient, like.dtype),)


whole.defvjp(_whole, _part)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def whole_here(w: Array, shards: Shards, dtype: Any, manual: frozenset[str]) -> Array:
    """As `whole`, within `jax.shard_map`. The result, rounded to `dtype`, has the dtype of w, so that its gradient is
    not rounded before it is added up."""
    part = w.astype(dtype)
    for axis, over in shards.gathered(manual):
        part = jax.lax.all_gather(part, over, axis=axis, tiled=True)
    return part.astype(w.dtype)


def _whole_here(w: Array, shards: Shards, dtype: Any, manual: frozenset[str]) -> tuple[Array, None]:
    return whole_here(w, shards, dtype, manual), None


def _part_here(shards: Shards, dtype: Any, manual: frozenset[str], _: None, gradient: Array) -> tuple[Array]:
    part = gradient
    for axis, over in reversed(shards.gathered(manual)):
        part = _added_up(part.astype(shards.sums), axis, over)
    return (part.astype(gradient.dtype),)


def _added_up(x: Array, axis: int, over: tuple[str, ...]) -> Array:
    """The part along `axis` of this device, float32, of the sum of what devices have. It is `jax.lax.psum_scatter`,
    which XLA's TPU compiler makes an all-reduce of; and what is sent in half precision is not added up in it."""
    ways = jax.lax.axis_size(over)
    split = x.reshape(*x.shape[:axis], ways, -1, *x.shape[axis + 1 :])
    return jax.lax.all_to_all(split, over, split_axis=axis, concat_axis=axis).sum(axis, dtype=jnp.float32)


whole_here.defvjp(_whole_here, _part_here)
