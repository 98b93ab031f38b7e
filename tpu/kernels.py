"""FLOPs of kernels in a compiled program. Most Pallas kernels state a cost estimate. Of those that do not, these are
known by name; as in `lm.inspect.cost`, attention counts all pairs of tokens, also those that a mask lets a kernel
skip."""

import math
import re
from collections.abc import Callable, Sequence

from tpu.hlo import Computation, Instruction, Shape

# For queries q [.., S, d], keys k [.., T, d] and values v [.., T, w] (Dao et al. 2022, arXiv 2205.14135): how many
# matmuls take d multiply-adds for a pair of tokens, and how many w.
_FORWARD = (1, 1)  # scores; what is read by them
_QUERIES = (2, 1)  # scores anew, the gradient of probabilities, that of queries
_KEYS = (2, 2)  # scores anew, the gradient of probabilities, those of keys and values


def _attention(matmuls: tuple[int, int]) -> Callable[[Sequence[Shape]], int]:
    def flops(operands: Sequence[Shape]) -> int:
        q, k, v = [x for x in operands if x.dtype.startswith(("f", "bf"))][:3]
        pairs = math.prod(q.dims[:-1]) * k.dims[-2]
        return 2 * pairs * (matmuls[0] * q.dims[-1] + matmuls[1] * v.dims[-1])

    return flops


def _softmax(operands: Sequence[Shape]) -> int:
    """The TPU compiler's own: softmax of scores [.., S, T], times values [.., T, w]."""
    scores, values = operands
    return 2 * scores.size * values.dims[-1]


KNOWN: dict[str, Callable[[Sequence[Shape]], int]] = {
    r"online-softmax": _softmax,
    r"splash_m[hq]a_fwd": _attention(_FORWARD),  # jax.experimental.pallas.ops.tpu.splash_attention
    r"splash_m[hq]a_dq": _attention(_QUERIES),
    r"splash_m[hq]a_dkv": _attention(_KEYS),
}


def kernel_flops(x: Instruction, inside: Computation) -> int | None:
    """Of a custom call; None for a kernel of which nobody says."""
    if (stated := _stated(x, "flops")) is not None:
        return stated
    if 'custom_call_target="tpu_custom_call"' not in x.attributes:
        return 0
    for name, of in KNOWN.items():
        if re.match(name, x.name):
            return of([operand.shapes[0] for operand in inside.operands(x)])
    return None


def kernel_bytes(x: Instruction) -> int:
    """That a kernel says it moves; 0 where it says nothing."""
    return _stated(x, "bytes_accessed") or 0


def _stated(x: Instruction, what: str) -> int | None:
    found = re.search(rf'"cost_estimate":\{{[^}}]*"{what}":"(\d+)"', x.attributes)
    return int(found[1]) if found and x.opcode == "custom-call" else None
