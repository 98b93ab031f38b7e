"""The table of attention kernels. Which one runs is a choice of execution (`Execution.attention`), never of the model:
all give the same result but for rounding."""

from typing import NamedTuple

import jax

from lm.core.errors import UserError, nearest
from lm.kernels.attention import blocked, reference
from lm.kernels.attention.spec import Attend, AttentionSpec, Supports

Array = jax.Array


class Kernel(NamedTuple):
    attend: Attend
    supports: Supports


# The best first: without a name the first that supports what is asked for is taken.
KERNELS: dict[str, Kernel] = {
    "blocked": Kernel(blocked.blocked, blocked.supports),
    "blocked_bias": Kernel(blocked.blocked_bias, blocked.supports_bias),
    "reference": Kernel(reference.reference, reference.supports),
}


def select(spec: AttentionSpec, q: Array, k: Array, v: Array, name: str | None = None) -> Attend:
    """The kernel of that name, or the best one, for arrays of these shapes.

    Raises `UserError` for a name that is not in the table, and where the named kernel does not support `spec`."""
    if name is None:
        return next(kernel.attend for kernel in KERNELS.values() if kernel.supports(spec, q, k, v) is None)
    if name not in KERNELS:
        raise UserError(f"attention={name!r} is no kernel{nearest(name, KERNELS)}")
    if reason := KERNELS[name].supports(spec, q, k, v):
        raise UserError(
            f"attention={name!r} cannot run a layer of this model ({reason}): leave it out, and each layer gets the "
            "best kernel for it"
        )
    return KERNELS[name].attend
