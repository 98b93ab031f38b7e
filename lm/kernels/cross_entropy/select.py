"""The table of losses of a vocabulary. Which one runs is a choice of execution (`Execution.cross_entropy`), never of
the model: both give the same but for rounding, of any head and anywhere. `docs/howto/add-a-kernel.md` says why none is
for TPUs alone."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.kernels.cross_entropy.chunked import chunked
from lm.kernels.cross_entropy.reference import reference
from lm.kernels.cross_entropy.spec import CrossEntropy, Logits, Terms, TokenLosses

Array = jax.Array

KERNELS: dict[str, CrossEntropy] = {"chunked": chunked, "reference": reference}  # the best first


def cross_entropy(
    head: Logits,
    params: Any,
    x: Array,
    targets: Array,
    weights: Array,
    ctx: Ctx,
    terms: Terms = Terms(),
    chunk: int = 128,
) -> tuple[Array, TokenLosses]:
    """By the kernel that ctx names, or the best one: see `CrossEntropy`.

    Raises `UserError` for a name that is not in the table."""
    name = ctx.execution.cross_entropy or next(iter(KERNELS))
    if name not in KERNELS:
        raise UserError(f"cross_entropy={name!r} is no kernel{nearest(name, KERNELS)}")
    return KERNELS[name](head, params, x, targets, weights.astype(jnp.float32), terms, chunk)
