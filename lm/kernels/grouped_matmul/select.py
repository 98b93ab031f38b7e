"""The table of grouped matmuls, and the choice among them. Which one runs is a choice of execution
(`Execution.grouped_matmul`), never of the model: all give the same result but for rounding."""

import functools
from collections.abc import Sequence

import jax

from lm.core.ctx import Ctx
from lm.kernels.choice import choose, on_tpu
from lm.kernels.grouped_matmul import batched, blocked, by_row, megablox, ragged, reference
from lm.kernels.grouped_matmul.spec import GroupedKernel, RowGroups
from lm.kernels.place import Place, place_of

Array = jax.Array

# The best first: without a name the first that supports what is asked for is taken.
KERNELS: dict[str, GroupedKernel] = {
    "by_row": GroupedKernel(by_row.multiply, by_row.pull_back, by_row.outer, by_row.supports),
    "blocked": GroupedKernel(blocked.multiply, blocked.pull_back, blocked.outer, blocked.supports),
    "batched": GroupedKernel(batched.multiply, batched.pull_back, batched.outer, batched.supports),
    "megablox": GroupedKernel(megablox.multiply, megablox.pull_back, megablox.outer, megablox.supports, on_tpu),
    "ragged_dot": GroupedKernel(ragged.multiply, ragged.pull_back, ragged.outer, ragged.supports),
    "reference": GroupedKernel(reference.multiply, reference.pull_back, reference.outer, reference.supports),
}


def grouped_matmul(x: Array, weights: Sequence[Array], groups: RowGroups, ctx: Ctx) -> tuple[Array, ...]:
    """Rows x [N, in] times their group's matrix in each of `weights` [E, in, out] -> [N, out] each, in x's dtype. Rows
    of no group give zeros. Gradients are rounded to the dtype of what they belong to, once.

    Raises `UserError` where the kernel that ctx names cannot do this."""
    kernel = select(x, weights, groups.room, place_of(ctx), ctx.execution.grouped_matmul)
    return _product(kernel, x, tuple(weights), groups)


def select(
    x: Array, weights: Sequence[Array], room: int | None, place: Place, name: str | None = None
) -> GroupedKernel:
    """The kernel of that name, or the best one, for arrays of these shapes and groups with such room at this place.

    Raises `UserError` for a name that is not in the table, and where the named kernel does not support this."""
    return choose("grouped_matmul", "experts", KERNELS, lambda it: it.supports(x, weights, room, place), place, name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(kernel: GroupedKernel, x: Array, weights: tuple[Array, ...], groups: RowGroups) -> tuple[Array, ...]:
    return kernel.multiply(x, weights, groups)


def _forward(
    kernel: GroupedKernel, x: Array, weights: tuple[Array, ...], groups: RowGroups
) -> tuple[tuple[Array, ...], tuple]:
    return kernel.multiply(x, weights, groups), (x, weights, groups)


def _backward(kernel: GroupedKernel, saved: tuple, dys: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...], None]:
    x, weights, groups = saved
    return (
        kernel.pull_back(dys, weights, groups),
        kernel.outer(x, dys, groups, weights[0].dtype),
        None,
    )


_product.defvjp(_forward, _backward)
