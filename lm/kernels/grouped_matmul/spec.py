"""What a grouped matmul is, and what a kernel of it is: rows x [N, in] stand group by group, and each is multiplied by
the matrix of its group. Several weights may share the rows: one reading of them serves all.

Shapes: N rows, E groups (experts); weights [E, in, out], of which `out` may differ between those that share rows."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.kernels.choice import Home
from lm.kernels.place import Place

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowGroups:
    """Which rows belong to which group. Those that belong to none give zeros, and no gradient.

    sizes: [E] integers, how many rows each group has, which add up to N at most;
    room: None: groups stand one after the other, and what belongs to none behind the last. A number: each group has
        room for so many rows, N = E room, and its own come first there."""

    sizes: Array
    room: int | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def starts(self) -> Array:
        """The first row of each group, [E]."""
        if self.room is None:
            return jnp.cumsum(self.sizes) - self.sizes
        return jnp.arange(len(self.sizes)) * self.room

    def of(self, n: int) -> Array:
        """The group of each of n rows, [n]; E for those of none."""
        row, number = jnp.arange(n), len(self.sizes)
        if self.room is None:
            return jnp.searchsorted(jnp.cumsum(self.sizes), row, side="right")
        return jnp.where(row % self.room < jnp.repeat(self.sizes, self.room), row // self.room, number)

    def keep(self, x: Array) -> Array:
        """x [N, ...] with zeros for rows of no group."""
        return jnp.where((self.of(len(x)) < len(self.sizes))[:, None], x, 0)


class GroupedKernel(NamedTuple):
    """A kernel: the product and its two gradients. All sum in float32 and round weights to the rows' dtype first.

    multiply: (x [N, in], weights, groups) -> for each weight [N, out], in x's dtype;
    pull_back: (dys, for each weight [N, out]; weights; groups) -> [N, in], in dys' dtype: the gradient by x, which is
        the sum over weights of dy times the group's matrix, transposed;
    outer: (x [N, in], dys, groups, dtype) -> for each dy [E, in, out] in `dtype`: the gradients by the weights, which
        are x^T dy over the rows of each group, zero for groups without any;
    supports: (x, weights, room, place) -> None if the kernel does this, else what stands against it, in a few words. Of
        the arrays only shapes and dtypes are read;
    home: None: it runs anywhere."""

    multiply: Callable[[Array, Sequence[Array], RowGroups], tuple[Array, ...]]
    pull_back: Callable[[Sequence[Array], Sequence[Array], RowGroups], Array]
    outer: Callable[[Array, Sequence[Array], RowGroups, Any], tuple[Array, ...]]
    supports: Callable[[Array, Sequence[Array], int | None, Place], str | None]
    home: Home | None = None
