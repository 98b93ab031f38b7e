"""How the layers of a group are walked: by `lax.scan`, one after the other in Python, or in a pipeline (`lm.parallel`).

A walk is a choice of execution (`Execution.walk`), not of the model: all of them compute the same values, gradients and
random bits from the same parameter tree."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lm.core.param import Tree
from lm.core.remat import named, rematerialised

if TYPE_CHECKING:
    from lm.core.ctx import Ctx
    from lm.core.mesh import Sharding

Array = jax.Array


class Repeats(NamedTuple):
    """What a layer group passes to a walk."""

    number: int
    own: Tree  # parameters of each repeat, leaves [number, ...]; None where all share one set
    common: Tree  # that set, else None
    caches: list | None  # one for each repeat; None: nothing is cached


class Repeat(Protocol):
    """One repeat of a layer group. It reads nothing but its arguments, because a walk may call it with part of the
    batch and the ctx of that part.

    ctx, common: as passed to the walk. carry: what layers pass on, leaves [B, ...]. index: number of the repeat, an int
    or traced. own, cache: of this repeat. Returns (carry, cache, aux)."""

    def __call__(
        self, ctx: "Ctx", common: Tree, carry: Tree, index: Array | int, own: Tree, cache: Tree
    ) -> tuple[Tree, Tree, Tree]: ...


# loss(walk, weights, fixed, batch, memory) -> total, (weight, metrics, aux): sums over the rows of the batch, and aux,
# leaves [layers, B, ...]. `fixed` is all that it reads besides, and nothing traced comes from elsewhere: a walk may
# call it within `jax.shard_map`.
WalkedLoss = Callable[..., tuple[Array, Any]]


class Walk(Protocol):
    """Calls `repeat` for each repeat in turn, rematerialised as `ctx.execution.remat` says. A walk is static under
    `jax.jit`, so it must be hashable.

    Returns the last carry; the new caches, one per repeat, or None; and the repeats' aux, leaves [number, ...]."""

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: "Ctx") -> tuple[Tree, list | None, Tree]: ...

    def value_and_grad(self, loss: WalkedLoss, sharding: "Sharding | None") -> Callable:
        """A function (weights, fixed, batch, memory) -> (total, (weight, metrics, aux)), gradient by the weights, of a
        loss whose layers are walked so: usually what `jax.value_and_grad` makes of it. A schedule in which forward and
        backward passes alternate is a matter of the whole loss, not of its layers alone."""
        return jax.value_and_grad(functools.partial(loss, self), has_aux=True)


def step_of(repeat: Repeat, common: Tree, ctx: "Ctx", in_loop: bool) -> Callable[[Tree, tuple], tuple[Tree, tuple]]:
    """`repeat` as a body for `lax.scan`, (carry, (index, own, cache)) -> carry, (cache, aux), rematerialised as
    `ctx.execution` says. `in_loop`: XLA sees a single loop iteration, so it cannot merge a recomputation with the
    original."""

    def step(carry: Tree, xs: tuple) -> tuple[Tree, tuple]:
        carry, cache, aux = repeat(ctx, common, named(carry, "layer_input"), *xs)
        return carry, (cache, aux)

    return rematerialised(step, ctx.execution.remat, ctx.execution.remat_names, in_loop)


@dataclasses.dataclass(frozen=True)
class Scan(Walk):
    """`jax.lax.scan`: traced and compiled once, however many repeats there are."""

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: "Ctx") -> tuple[Tree, list | None, Tree]:
        n, own, common, caches = repeats
        packed = None if caches is None else jax.tree.map(lambda *x: jnp.stack(x), *caches)
        step = step_of(repeat, common, ctx, in_loop=True)
        carry, (new, aux) = jax.lax.scan(step, carry, (jnp.arange(n), own, packed))
        if caches is None:
            return carry, None, aux
        return carry, [jax.tree.map(lambda x, r=r: x[r], new) for r in range(n)], aux


@dataclasses.dataclass(frozen=True)
class Unrolled(Walk):
    """A Python loop over repeats: slower to compile, but faster to run when layers are small (decoding, models on a
    CPU). The index of a repeat is an int."""

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: "Ctx") -> tuple[Tree, list | None, Tree]:
        n, own, common, caches = repeats
        # Split each tensor once instead of indexing per layer: the gradient of an index pads the whole stack each time.
        split = [None] * n if own is None else unstack(own, n)
        step = step_of(repeat, common, ctx, in_loop=False)
        news: list[Tree] = []
        auxs: list[Tree] = []
        for r in range(n):
            carry, (new, aux) = step(carry, (r, split[r], None if caches is None else caches[r]))
            news.append(new)
            auxs.append(aux)
        return carry, None if caches is None else news, jax.tree.map(lambda *x: jnp.stack(x), *auxs)


def unstack(tree: Tree, n: int) -> list[Tree]:
    """n trees from one whose leaves have a leading axis of size n."""
    leaves, treedef = jax.tree.flatten(tree)
    split = [[part.squeeze(0) for part in jax.lax.split(x, (1,) * n)] for x in leaves]
    return [jax.tree.unflatten(treedef, layer) for layer in zip(*split, strict=True)] if leaves else [tree] * n
