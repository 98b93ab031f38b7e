"""For NVIDIA GPUs: the flash attention of cuDNN, by way of `jax.nn.dot_product_attention`.

It skips what a causal mask or a causal window hides. Whatever else is hidden, packed rows too, it reads from an array
of queries by keys, which is half precision, serves all heads, and is made only for rows of moderate length."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.rows import Mask, Tokens, visible
from lm.kernels.attention import local
from lm.kernels.attention.spec import AttentionSpec, Bias, OnProbs, Own
from lm.kernels.place import Place

Array = jax.Array
Implementation = Literal["cudnn", "xla"]

WIDEST = 128  # head; 256 would do from Hopper on, but what a program is compiled for does not say
LONGEST = 4096  # queries or keys whose mask is made as an array: 32 MB a row, and its gradient as much


def supports(spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> str | None:
    if spec.probs:
        return "probabilities are dropped out or recorded, which needs them all at once"
    if spec.cap or spec.sinks or spec.own:
        return "it knows of no cap, sinks or keys of a query's own"
    if spec.bias:
        return "biases would be rounded to half precision"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it knows bfloat16 and float16, not {q.dtype}"
    width = q.shape[3]
    if v.shape[3] != width or width % 8 or width > WIDEST:
        return f"heads of width {width} and {v.shape[3]}: equal ones, a multiple of 8 up to {WIDEST}, would do"
    lengths = q.shape[2], k.shape[2]
    if not told(spec, lengths) and (max(lengths) > LONGEST or any(length % 2 for length in lengths)):
        return f"what hides keys would be an array of {lengths[0]} x {lengths[1]}: even numbers up to {LONGEST} do"
    return local.supports(q, k, place)


def cudnn(
    q: Array,
    k: Array,
    v: Array,
    spec: AttentionSpec,
    q_tokens: Tokens,
    k_tokens: Tokens,
    *,
    place: Place,
    bias: Bias | None = None,
    sinks: Array | None = None,
    own: Own | None = None,
    on_probs: OnProbs | None = None,
    implementation: Implementation = "cudnn",
) -> Array:
    """See `Attend`. `implementation`: "xla" does the same anywhere, slowly."""
    attend = functools.partial(_attend, spec, implementation)
    return local.on_each_device(attend, q, k, v, q_tokens, k_tokens, sinks, place)


def _attend(
    spec: AttentionSpec,
    implementation: Implementation,
    q: Array,
    k: Array,
    v: Array,
    q_tokens: Tokens,
    k_tokens: Tokens,
    _sinks: Array | None,
) -> Array:
    lengths = q.shape[2], k.shape[2]
    low, high = spec.mask.band()
    # Indices tell whether a key is behind only where they are those of the queries' own tokens.
    causal = spec.aligned and not spec.extra and high == 0
    mask = None if told(spec, lengths) else visible(spec.mask, q_tokens, k_tokens, spec.extra)[:, None]
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    out = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        scale=spec.scale,
        is_causal=causal,
        local_window_size=(-low, 0) if causal and low is not None else None,
        implementation=implementation,
    )
    return jnp.swapaxes(out, 1, 2)


def told(spec: AttentionSpec, lengths: tuple[int, int]) -> bool:
    """Whether a kernel that knows causal masks and windows behind a query needs to hear of no other hidden key."""
    return not spec.packed and (
        everywhere(spec.mask) or (spec.aligned and not spec.extra and behind(spec.mask, lengths[0]))
    )


def everywhere(mask: Mask) -> bool:
    """Whether it hides nothing within a text."""
    parts = mask.separated()
    return parts is not None and parts.near is None and parts.pieces is None


def behind(mask: Mask, length: int) -> bool:
    """Whether a query sees just the keys of a band that ends with its own."""
    parts, (low, high) = mask.separated(), mask.band()
    if parts is None or parts.near is None or parts.pieces is not None or parts.shown is not None or high != 0:
        return False
    ahead = np.arange(1 - length, length)
    return bool((parts.near(ahead) == ((ahead <= 0) & (ahead >= (ahead[0] if low is None else low)))).all())
