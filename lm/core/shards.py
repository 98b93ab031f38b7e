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
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import NamedSharding, PartitionSpec

from lm.core.mesh import Halves, lay_out
from lm.core.rules import as_axes

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Shards:
    """The layout of one weight, without the axis of layers. Nothing in it is traced.

    cut: of its part of the state, and of its gradient;
    whole: where it has been gathered, along all mesh axes that cut rows;
    rows: those mesh axes that cut rows and not it;
    owners: those along which experts lie, which stay where they lie;
    sums: the dtype in which devices add up what they have of its gradient;
    halves: of a mesh axis along which it is gathered in two steps, and its gradient added up (`Halves`);
    narrow: a part has fewer columns than a TPU's registers, or no multiple of them. TPUs store such a part with its
        columns in one piece, [.., in, out] as [.., out, in]. What reads it as [in, out] has XLA copy the stack of all
        layers into that order, in float32, each row filled up to 128 columns."""

    cut: NamedSharding
    whole: NamedSharding
    rows: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    sums: Any = jnp.float32
    halves: Halves | None = None
    narrow: bool = False

    @property
    def turned(self) -> "Shards":
        """Of the transposed weight."""
        cut, whole = (NamedSharding(at.mesh, _turned(at.spec)) for at in (self.cut, self.whole))
        return dataclasses.replace(self, cut=cut, whole=whole, narrow=False)

    def gather(self, w: Array, dtype: Any) -> Array:
        """The whole weight, rounded to `dtype` first: that is what is sent."""
        return lay_out(self._halfway(rounded(w, dtype)), self.whole)

    def scatter(self, gradient: Array, dtype: Any) -> Array:
        """What devices have of the gradient of the whole weight, added up into the shards."""
        return lay_out(self._halfway(gradient.astype(self.sums)), self.cut).astype(dtype)

    def summed_over(self, axis: int, dtype: Any) -> Any:
        """The dtype for a product that sums over this axis of the whole weight: where devices share that out, they add
        up what each has. None: each has all of it."""
        return None if self.whole.spec[axis] is None else jnp.promote_types(self.sums, dtype)

    def _halfway(self, x: Array) -> Array:
        """Between whole and cut. (Within a stage of a pipeline, whose mesh has an axis less, all at once.)"""
        if self.halves is None or jax.sharding.get_abstract_mesh().manual_axes:
            return x
        return lax.with_sharding_constraint(x, self.halves.halfway(self.cut.spec, self.whole.spec))

    # Within `jax.shard_map`, over mesh axes `manual`.

    def within(self, manual: frozenset[str]) -> PartitionSpec:
        """How the part of one device is told from the others'."""
        return PartitionSpec(*(tuple(a for a in axes if a in manual) or None for axes in _each(self.cut)))

    def gathered(self, manual: frozenset[str]) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """(axis of the weight, mesh axes along which it is gathered there), for each that is."""
        gone = (tuple(a for a in cut if a in manual and a not in self.owners) for cut in _each(self.cut))
        return tuple((i, axes) for i, axes in enumerate(gone) if axes)

    def steps(self, over: tuple[str, ...]) -> tuple[list[list[int]] | None, ...]:
        """The groups of devices that gather along these axes, step by step; None: all at once."""
        return (None,) if self.halves is None or over != (self.halves.axis,) else self.halves.groups


def rounded(w: Array, dtype: Any) -> Array:
    """w in `dtype`. A plain conversion to bfloat16 XLA moves ahead of the loop over layers, and so keeps all of them in
    both precisions; a rounding it leaves where it is."""
    if w.dtype == jnp.float32 and dtype == jnp.bfloat16:
        w = lax.reduce_precision(w, exponent_bits=8, mantissa_bits=7)
    return w.astype(dtype)


def _turned(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*spec[:-2], spec[-1], spec[-2])


def _as_stored(w: Array) -> Array:
    """A narrow part (`Shards.narrow`), in the order in which TPUs store it. What follows then copies one layer."""

    def in_columns(w: Array) -> Array:
        return with_layout_constraint(w, Layout((*range(w.ndim - 2), w.ndim - 1, w.ndim - 2)))

    return lax.platform_dependent(w, tpu=in_columns, default=lambda w: w)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def whole_here(w: Array, shards: Shards, dtype: Any, manual: frozenset[str], once: bool) -> Array:
    """As `whole`, within `jax.shard_map`. The result, rounded to `dtype`, has the dtype of w, so that its gradient is
    not rounded before it is added up. Where a device has its gradient `once`, and not in parts that it adds up, the
    result may have the dtype in which devices add up: what makes the gradient then never writes it in float32."""
    part = rounded(_as_stored(w) if shards.narrow else w, dtype)
    for axis, over in shards.gathered(manual):
        for groups in shards.steps(over):
            part = lax.all_gather(part, over, axis=axis, tiled=True, axis_index_groups=groups)
    return part.astype(jnp.promote_types(dtype, shards.sums) if once else w.dtype)


def _whole_here(w: Array, shards: Shards, dtype: Any, manual: frozenset[str], once: bool) -> tuple[Array, Array]:
    return whole_here(w, shards, dtype, manual, once), jnp.zeros((), w.dtype)


def _part_here(
    shards: Shards, dtype: Any, manual: frozenset[str], once: bool, like: Array, gradient: Array
) -> tuple[Array]:
    part = gradient
    for axis, over in reversed(shards.gathered(manual)):
        part = _added_up(part.astype(shards.sums), axis, over)
    return (part.astype(like.dtype),)


def _added_up(x: Array, axis: int, over: tuple[str, ...]) -> Array:
    """The part along `axis` of this device, float32, of the sum of what devices have. It is `jax.lax.psum_scatter`,
    which XLA's TPU compiler makes an all-reduce of; and what is sent in half precision is not added up in it."""
    ways = lax.axis_size(over)
    split = x.reshape(*x.shape[:axis], ways, -1, *x.shape[axis + 1 :])
    return lax.all_to_all(split, over, split_axis=axis, concat_axis=axis).sum(axis, dtype=jnp.float32)


whole_here.defvjp(_whole_here, _part_here)
