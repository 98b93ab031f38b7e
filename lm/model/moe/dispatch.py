"""Dispatches: how tokens get to their experts and back.

Shapes: B batch, S tokens of a row, D model width, E experts, k choices per token; R routing groups, N tokens of a
group, C capacity of an expert within a group.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.leaf import Leaf, leaf
from lm.core.param import Tree
from lm.core.ranges import Count
from lm.kernels.grouped_matmul.select import grouped_matmul
from lm.kernels.grouped_matmul.spec import RowGroups
from lm.model.moe.places import Places, combine, queues, spread
from lm.model.moe.routers import Routing
from lm.model.moe.slots import SlotRouting

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Experts:
    """The experts of a layer, ready to be called by a dispatch."""

    expert: Callable[[Tree, Array, Ctx, Tree, dict], tuple[Array, Tree]]  # as a sub-layer is called
    params: Tree  # leaves [E, ...]
    number: int  # E

    def __call__(self, x: Array, ctx: Ctx, sizes: Array | None = None) -> Array:
        """Each expert on rows of its own: x [E, ..., D] -> [E, ..., D]. Where `sizes` [E] are given, only so many rows
        of each expert count, the first ones."""
        room = x.size // (self.number * x.shape[-1])
        groups = RowGroups(jnp.full(self.number, room) if sizes is None else sizes, room)
        return self._by_groups(x.reshape(-1, x.shape[-1]), groups, ctx).reshape(x.shape)

    def grouped(self, x: Array, sizes: Array, ctx: Ctx) -> Array:
        """Rows x [N, D] in the order of their experts, `sizes` [E] for each of them -> [N, D]. Sizes add up to N at
        most; what comes of rows after the last expert's has no meaning."""
        return self._by_groups(x, RowGroups(sizes), ctx)

    def _by_groups(self, x: Array, groups: RowGroups, ctx: Ctx) -> Array:
        own = groups.of(len(x))

        def of_rows(w: Any) -> Any:  # matrices multiply by groups, of vectors (biases, gains) each row takes its own
            if len(w.shape) == 3:
                return Grouped(w.dense() if isinstance(w, Leaf) else w, groups, ctx)
            return w.at[own].get(mode="fill", fill_value=0)

        p = jax.tree.map(of_rows, self.params, is_leaf=lambda w: isinstance(w, Leaf))
        # No rows, and no mesh: x is no [B, S, D]
        return self.expert(p, x, Ctx(execution=ctx.execution), None, {})[0]


@leaf
class Grouped(Leaf):
    """The matrices of all experts in the place of one: each group of rows is multiplied by its own."""

    w: Array  # [E, in, out]
    groups: RowGroups  # of the rows of x
    ctx: Ctx

    @property
    def weight(self) -> Array:
        return self.w

    def dot(self, x: Array, transpose: bool) -> Array:
        w = jnp.swapaxes(self.w, 1, 2) if transpose else self.w
        return grouped_matmul(x, (w,), self.groups, self.ctx)[0]

    @classmethod
    def linears(cls, x: Array, leaves: Sequence[Any], biases: Sequence[Any]) -> list[Array]:
        ys = grouped_matmul(x, [leaf.w for leaf in leaves], leaves[0].groups, leaves[0].ctx)
        return [y if b is None else y + b.astype(y.dtype) for y, b in zip(ys, biases, strict=True)]

    def take(self, ids: Array | int, dtype: Any) -> Array:
        raise TypeError("rows of experts' matrices are not looked up")

    def dense(self) -> Array:
        return self.w


class Dispatch(abc.ABC):
    """The dispatch protocol: a component without parameters that takes tokens through their experts. What it makes of
    a row does not depend on the other rows of the batch, so that each device of a mesh can call it for rows of its own
    (`lm.model.moe.expert_parallel`).

    takes: what the router must give"""

    takes: ClassVar[type] = Routing

    @abc.abstractmethod
    def __call__(self, experts: Experts, x: Array, routing: Any, ctx: Ctx) -> tuple[Array, Array]:
        """x [B, S, D] -> (y, dropped). y [B, S, D]: the sum over a token's choices of weight times what the expert
        makes of it, without choices that are not valid. dropped [B], float32: valid choices that were not served."""


@component
class Capacity(Dispatch):
    """Each expert has capacity = ceil(factor * k * N / E) slots in a routing group (GShard, Lepikhin et al. 2020,
    arXiv 2006.16668): first choices are served before second ones, earlier tokens before later ones, and what finds no
    slot is dropped. Shapes are static, those of an exchange between devices too. A second choice may lose its slot to a
    later token's first one: of k = 1, and where nothing is dropped, a token's output depends on no later token.

    factor: slots per choice, 1 or more;
    group: consecutive tokens of a row that share slots; None: the whole row;
    slots: how many there are of each expert, instead of as many as `factor` says (transformers' expert_capacity)."""

    factor: float = 1.25
    group: Count | None = None
    slots: int | None = None

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise UserError(
                f"capacity factor={self.factor!r} is below 1, so that even equal loads would not fit: raise it, or say "
                "by slots how many choices of a group an expert takes"
            )
        if self.slots is not None and self.slots < 1:
            raise UserError(f"capacity slots={self.slots} must be at least 1")

    def capacity(self, group: int, choices: int, experts: int) -> int:
        return min(group, self.slots or math.ceil(self.factor * choices * group / experts))

    def __call__(self, experts: Experts, x: Array, routing: Routing, ctx: Ctx) -> tuple[Array, Array]:
        b, s, d = x.shape
        n = min(self.group or s, s)
        pad = -s % n

        def grouped(y: Array) -> Array:  # [B, S, ...] -> [R, N, ...]
            return jnp.pad(y, ((0, 0), (0, pad)) + ((0, 0),) * (y.ndim - 2)).reshape(-1, n, *y.shape[2:])

        choices = (grouped(routing.weights), grouped(routing.experts), grouped(routing.valid))
        y, kept = self._served(experts, grouped(x), *choices, ctx)
        chosen = routing.valid.astype(jnp.float32).sum(axis=(1, 2))
        return y.reshape(b, s + pad, d)[:, :s], chosen - kept.reshape(b, -1).sum(axis=1)

    def _served(
        self, experts: Experts, x: Array, weights: Array, picks: Array, valid: Array, ctx: Ctx
    ) -> tuple[Array, Array]:
        """x [R, N, D], weights, picks and valid [R, N, k] -> y [R, N, D], choices served [R]."""
        (r, n, d), k, e = x.shape, weights.shape[-1], experts.number
        capacity = self.capacity(n, k, e)
        queued = queues(picks, valid, e)
        starts = jnp.cumsum(queued.sizes, axis=1) - queued.sizes  # [R, E]
        nth = queued.ranks - _of(starts, picks)  # of its expert's queue
        kept = valid & (nth < capacity)
        # An expert has room for R C rows; those of a group come right after those of the groups before it.
        served = jnp.minimum(queued.sizes, capacity)
        before = jnp.cumsum(served, axis=0) - served
        places = jnp.where(kept, picks * (r * capacity) + _of(before, picks) + nth, e * r * capacity)
        at = Places.of(places.reshape(-1, k), e * r * capacity)
        inputs = spread(x.reshape(-1, d), at).reshape(e, r * capacity, d)
        y = combine(experts(inputs, ctx, served.sum(axis=0)).reshape(-1, d), weights.reshape(-1, k), at)
        return y.reshape(x.shape), kept.sum(axis=(1, 2)).astype(jnp.float32)


def _of(table: Array, picks: Array) -> Array:
    """What stands in a table [R, E] for the experts of choices [R, N, k]."""
    return jnp.take_along_axis(table[:, None], picks, axis=2)


@component
class Dropless(Dispatch):
    """Every choice is served: those of the batch are sorted by expert, and each expert's run of rows is multiplied by
    its matrices (MegaBlocks, Gale et al. 2022, arXiv 2211.15841; `lm.kernels.grouped_matmul`). What they
    give may be of another width than x."""

    any_order: ClassVar[bool] = True

    def __call__(self, experts: Experts, x: Array, routing: Routing, ctx: Ctx) -> tuple[Array, Array]:
        (b, s, d), k = x.shape, routing.experts.shape[-1]
        every = b * s * k
        weights, picks, valid = (v.reshape(1, -1, k) for v in (routing.weights, routing.experts, routing.valid))
        queued = queues(picks, valid, experts.number)
        at = Places.of(jnp.where(valid, queued.ranks, every)[0], every)
        y = experts.grouped(spread(x.reshape(-1, d), at), queued.sizes[0], ctx)
        return combine(y, weights[0], at).reshape(b, s, -1), jnp.zeros(b, jnp.float32)


@component
class RouterSlots(Dispatch):
    """Experts work on slots that the router fills (`lm.model.moe.expert_choice`): how many there are is up to it."""

    takes: ClassVar[type] = SlotRouting

    def __call__(self, experts: Experts, x: Array, routing: SlotRouting, ctx: Ctx) -> tuple[Array, Array]:
        y = experts(routing.slots.gather(x), ctx)
        return routing.slots.combine(y, x.shape[1]), routing.stats.dropped
