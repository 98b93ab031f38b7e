"""Weights in shards (`lm.core.shards`), in the place of those that rules cut along the axes of the batch."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lm.core.leaf import Leaf, leaf, take
from lm.core.matmul import matmul
from lm.core.mesh import Sharding, halves_of
from lm.core.param import Param, Tree
from lm.core.rules import as_axes
from lm.core.shards import Shards, whole, whole_here
from lm.core.transform import map_tensors

Array = jax.Array

LANES = 128  # columns of a TPU's registers


@leaf
class FullySharded(Leaf):
    """A weight [..., in, out] of which devices with rows of their own have a part each."""

    w: Any
    shards: Shards = dataclasses.field(metadata={"static": True})

    @property
    def weight(self) -> Any:
        return self.w

    def linear(self, x: Array, bias: Array | None, transpose: bool, dtype: Any) -> Array:
        if self.shards.narrow and self.w.ndim == 2:
            return matmul(x, self.w.T, bias, not transpose, dtype, self.shards.turned)
        return matmul(x, self.w, bias, transpose, dtype, self.shards)

    def dot(self, x: Array, transpose: bool) -> Array:
        return self.linear(x, None, transpose, None)

    def take(self, ids: Array | int, dtype: Any) -> Array:
        rows = self.rows_of(ids)
        if rows is None:
            return take(whole(self.w, self.shards, self.w.dtype), ids, dtype)
        # Each device looks up in its part what those with the other shards ask for, too; then rows go to those that
        # asked. These are fewer than the table has.
        return jax.lax.with_sharding_constraint(take(self.w, ids, dtype), rows)

    def rows_of(self, ids: Array | int) -> NamedSharding | None:
        """Where rows lie that were looked up in shards of each; None where rows are not shared out as the batch is, or
        whole rows lie apart."""
        cut, mesh = self.shards.cut.spec, self.shards.cut.mesh
        ways = math.prod(mesh.shape[axis] for axis in (*self.shards.rows, *as_axes(cut[-1])))
        if jax.sharding.get_abstract_mesh().manual_axes:  # a stage of a pipeline, where this lookup is not partitioned
            return None
        if cut[0] != self.shards.whole.spec[0] or jnp.ndim(ids) < 2 or jnp.shape(ids)[0] % ways:
            return None
        between = (None,) * (jnp.ndim(ids) - 1)
        return NamedSharding(mesh, PartitionSpec(self.shards.rows or None, *between, cut[-1]))

    def dense(self) -> Array:
        return whole(self.w, self.shards, self.w.dtype)


def fully_sharded(params: Tree, spec: Tree, sharding: Sharding | None, sums: Any = jnp.float32) -> Tree:
    """`params` of that spec, with weights that are cut along axes of the batch as `FullySharded`
    ones. Those of two axes, as of transforms; what stands in the place of a weight already is left to itself."""
    if sharding is None:
        return params

    def one(_: str, p: Param, w: Any) -> Any:
        if w is None or isinstance(p, Leaf) or p.kind != "weight" or len(p.shape) - p.batch_dims != 2:
            return w
        shards = shards_of(p, sharding, sums)
        return w if shards.cut == shards.whole else FullySharded(w, shards)

    return map_tensors(one, spec, params)


def shards_of(p: Param, sharding: Sharding, sums: Any) -> Shards:
    """Of a weight with two axes. Layers are walked one by one, so theirs is not there; experts lie where they lie."""
    p = dataclasses.replace(p, shape=p.shape[1:], axes=p.axes[1:]) if p.axes[0] == "layers" else p
    cut = sharding.param(p)
    # Where activations of both widths lie along the batch.
    rows = set.intersection(*(set(as_axes(sharding.spec(("batch", "seq", name))[0])) for name in p.axes[-2:]))
    owners = tuple(a for name, axes in zip(p.axes, cut.spec, strict=True) if name == "expert" for a in as_axes(axes))
    whole = [tuple(axis for axis in as_axes(axes) if axis not in rows or axis in owners) or None for axes in cut.spec]
    width = cut.shard_shape(p.shape)[-1]
    narrow = as_axes(cut.spec[-1]) != as_axes(whole[-1]) and width % LANES > 0
    used = {axis for axes in cut.spec for axis in as_axes(axes)}
    others = tuple(axis for axis in sharding.over("batch") if axis in rows and axis not in used)
    gathered = next((axis for axis in sharding.over("batch") if axis in used and axis in rows), None)
    halves = halves_of(sharding.mesh, gathered) if gathered else None
    return Shards(cut, NamedSharding(sharding.mesh, PartitionSpec(*whole)), others, owners, sums, halves, narrow)


def on_entry(params: Tree, other: PartitionSpec, manual: frozenset[str]) -> Tree:
    """`in_specs` of `jax.shard_map` for `params`: of those that are not in shards, `other`."""
    return _map(lambda w: w.shards.within(manual), lambda _: other, params)


def whole_inside(params: Tree, dtype: Any, manual: frozenset[str], once: bool = False) -> Tree:
    """The `params` that came in, those in shards made whole, as `lm.core.shards.whole_here` has it."""
    return _map(lambda w: whole_here(w.w, w.shards, dtype, manual, once), lambda w: w, params)


def _map(of_parts: Any, of_others: Any, params: Tree) -> Tree:
    def one(w: Any) -> Any:
        return of_parts(w) if isinstance(w, FullySharded) else of_others(w)

    return jax.tree.map(one, params, is_leaf=lambda w: isinstance(w, FullySharded))
