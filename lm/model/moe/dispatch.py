"""Dispatches: how tokens get to their experts and back.

Shapes: B batch, S tokens of a row, D model width, E experts, k choices per token; R routing groups, N tokens of a
group, C capacity of an expert within a group.
"""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError
from lm.core.leaf import Leaf, dense, leaf
from lm.core.param import Tree
from lm.model.mlp import MLP, GatedMLP
from lm.model.moe.routers import Routing

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Experts:
    """The experts of a layer, ready to be called by a dispatch."""

    expert: MLP | GatedMLP
    params: Tree  # leaves [E, ...]
    number: int  # E

    def __call__(self, x: Array, ctx: Ctx) -> Array:
        """Each expert on rows of its own: x [E, ..., D] -> [E, ..., D]."""
        return jax.vmap(lambda p, rows: self._one(p, rows, ctx))(self.params, x)

    def grouped(self, x: Array, sizes: Array, ctx: Ctx) -> Array:
        """Rows x [N, D] in the order of their experts, `sizes` [E] for each of them, which add up to N -> [N, D]."""
        own = jnp.repeat(jnp.arange(self.number), sizes, total_repeat_length=len(x))

        def of_rows(w: Any) -> Any:  # matrices multiply by groups, of vectors (biases, gains) each row takes its own
            return Grouped(dense(w, x.dtype), sizes) if len(w.shape) == 3 else w[own]

        return self._one(jax.tree.map(of_rows, self.params, is_leaf=lambda w: isinstance(w, Leaf)), x, ctx)

    def _one(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        return self.expert(p, x, Ctx(execution=ctx.execution), None, {})[0]  # no rows, and no mesh: x is no [B, S, D]


@leaf
class Grouped(Leaf):
    """The matrices of all experts in the place of one: each group of rows is multiplied by its own."""

    w: Array  # [E, in, out]
    sizes: Array  # [E] rows of x

    @property
    def weight(self) -> Array:
        return self.w

    def dot(self, x: Array, transpose: bool) -> Array:
        return jax.lax.ragged_dot(x, jnp.swapaxes(self.w, 1, 2) if transpose else self.w, self.sizes)

    def take(self, ids: Array | int, dtype: Any) -> Array:
        raise TypeError("rows of experts' matrices are not looked up")

    def dense(self) -> Array:
        return self.w


class Dispatch(abc.ABC):
    """The dispatch protocol: a component without parameters that takes tokens through their experts. What it makes of
    a row does not depend on the other rows of the batch."""

    @abc.abstractmethod
    def __call__(self, experts: Experts, x: Array, routing: Routing, ctx: Ctx) -> tuple[Array, Array]:
        """x [B, S, D] -> (y, dropped). y [B, S, D]: the sum over a token's choices of weight times what the expert
        makes of it, 0 for tokens that are not valid. dropped [B], float32: choices of the row that were not served."""


@component
class Capacity(Dispatch):
    """Each expert has capacity = ceil(factor * k * N / E) slots in a routing group (GShard, Lepikhin et al. 2020,
    arXiv 2006.16668): first choices are served before second ones, earlier tokens before later ones, and what finds no
    slot is dropped. Shapes are static, so that experts can lie on different devices.

    factor: slots per choice;
    group: consecutive tokens of a row that share slots; None: the whole row."""

    factor: float = 1.25
    group: int | None = None

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise UserError(f"capacity factor={self.factor!r} must be greater than 0")

    def capacity(self, group: int, choices: int, experts: int) -> int:
        return min(group, math.ceil(self.factor * choices * group / experts))

    def __call__(self, experts: Experts, x: Array, routing: Routing, ctx: Ctx) -> tuple[Array, Array]:
        b, s, d = x.shape
        n = min(self.group or s, s)
        pad = -s % n

        def grouped(y: Array) -> Array:  # [B, S, ...] -> [R, N, ...]
            return jnp.pad(y, ((0, 0), (0, pad)) + ((0, 0),) * (y.ndim - 2)).reshape(-1, n, *y.shape[2:])

        weights, picks, valid, _ = routing
        y, kept = self._served(experts, grouped(x), grouped(weights), grouped(picks), grouped(valid), ctx)
        chosen = weights.shape[-1] * valid.astype(jnp.float32).sum(axis=1)
        return y.reshape(b, s + pad, d)[:, :s], chosen - kept.reshape(b, -1).sum(axis=1)

    def _served(
        self, experts: Experts, x: Array, weights: Array, picks: Array, valid: Array, ctx: Ctx
    ) -> tuple[Array, Array]:
        """x [R, N, D], weights and picks [R, N, k], valid [R, N] -> y [R, N, D], choices served [R]."""
        (r, n, d), k, e = x.shape, weights.shape[-1], experts.number
        capacity = self.capacity(n, k, e)
        slots = e * capacity
        # Slots are assigned choice by choice, so that no second choice displaces a first one.
        expert = jnp.swapaxes(picks, 1, 2).reshape(r, -1)  # [R, k N]
        real = jnp.tile(valid, (1, k))
        taken = jax.nn.one_hot(expert, e, dtype=jnp.int32) * real[..., None]
        nth = jnp.take_along_axis(jnp.cumsum(taken, axis=1), expert[..., None], axis=2)[..., 0] - 1
        kept = real & (nth < capacity)
        slot = jnp.where(kept, expert * capacity + nth, slots)  # past the end: dropped
        token = jnp.broadcast_to(jnp.tile(jnp.arange(n), k), slot.shape)
        table = jnp.full((r, slots), n).at[jnp.arange(r)[:, None], slot].set(token, mode="drop")
        padded = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))  # row n: what an unused slot reads
        inputs = jnp.take_along_axis(padded, table[..., None], axis=1).reshape(r, e, capacity, d)
        inputs = constrain(jnp.swapaxes(inputs, 0, 1), ctx, "expert", "group", None, "embed")  # [E, R, C, D]
        y = constrain(experts(inputs, ctx), ctx, "expert", "group", None, "embed")
        y = jnp.pad(jnp.swapaxes(y, 0, 1).reshape(r, slots, d), ((0, 0), (0, 1), (0, 0)))
        back = jnp.take_along_axis(y, slot[..., None], axis=1).reshape(r, k, n, d)
        return jnp.einsum("rknd,rnk->rnd", back, weights.astype(x.dtype)), kept.sum(axis=1).astype(jnp.float32)


@component
class Dropless(Dispatch):
    """Every choice is served: those of the batch are sorted by expert, and each expert's run of rows is multiplied by
    its matrices (MegaBlocks, Gale et al. 2022, arXiv 2211.15841; `jax.lax.ragged_dot`).

    Raises `UserError` on a mesh that spreads experts: every device needs all of them."""

    def __call__(self, experts: Experts, x: Array, routing: Routing, ctx: Ctx) -> tuple[Array, Array]:
        if ctx.sharding is not None and (ways := ctx.sharding.ways("expert")) > 1:
            raise UserError(
                f"Dropless needs all experts on every device, but the mesh spreads them over {ways}: "
                "set config.mesh.expert=1, or let dispatch be Capacity"
            )
        (b, s, d), k = x.shape, routing.experts.shape[-1]
        expert = routing.experts.reshape(-1)  # [B S k]
        order = jnp.argsort(expert, stable=True)
        y = experts.grouped(x.reshape(-1, d)[order // k], jnp.bincount(expert, length=experts.number), ctx)
        y = jnp.zeros_like(y).at[order].set(y, unique_indices=True).reshape(b, s, k, d)
        weights = routing.weights * routing.valid[..., None]
        return jnp.einsum("bskd,bsk->bsd", y, weights.astype(x.dtype)), jnp.zeros(b, jnp.float32)
