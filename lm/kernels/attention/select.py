"""The table of attention kernels. Which one runs is a choice of execution (`Execution.attention`), never of the model:
all give the same result but for rounding."""

from typing import NamedTuple

import jax

from lm.kernels.attention import blocked, cudnn, reference, splash
from lm.kernels.attention.spec import Attend, AttentionSpec, Supports
from lm.kernels.choice import Home, choose, on_gpu, on_tpu
from lm.kernels.place import Place

Array = jax.Array


class Kernel(NamedTuple):
    """home: what stands against a place; None: it runs anywhere."""

    attend: Attend
    supports: Supports
    home: Home | None = None


# The best first: without a name the first that supports what is asked for is taken.
KERNELS: dict[str, Kernel] = {
    "splash": Kernel(splash.splash, splash.supports, on_tpu),
    "cudnn": Kernel(cudnn.cudnn, cudnn.supports, on_gpu),
    "blocked": Kernel(blocked.blocked, blocked.supports),
    "blocked_bias": Kernel(blocked.blocked_bias, blocked.supports_bias),
    "reference": Kernel(reference.reference, reference.supports),
}


def select(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place, name: str | None = None) -> Attend:
    """The kernel of that name, or the best one at this place, for arrays of these shapes. Where one that was made for
    the place cannot run, that is logged, once for each reason.

    Raises `UserError` for a name that is not in the table, and where the named kernel does not support `spec`."""
    tell = q.shape[2] > 1  # a single query, as in decoding, loses nothing
    kernel = choose("attention", "a layer", KERNELS, lambda it: it.supports(spec, q, k, v, place), place, name, tell)
    return kernel.attend
