"""Choosing the next token from logits [B, V]: greedy, temperature, top-k and nucleus sampling."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lm.core.errors import UserError

Array = jax.Array
ONE = 0x3F800000  # the bits of float32 1.0


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a token is sampled. Logits are divided by `temperature` (0: always the most probable token), then cut to the
    `top_k` largest (0: all), then to the smallest set of mass `top_p` (1: all). `banned` ids are never sampled, nor are
    `banned_first` as the first token of a text.

    Hashable, so that it can be static under jit. Raises `UserError` for values out of range."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    banned: tuple[int, ...] = ()
    banned_first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature} must be 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} must be 0 (off) or a number of tokens to choose from")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be above 0 and at most 1 (off)")

    @property
    def first(self) -> "Sampler":
        """The sampler of a text's first token."""
        return dataclasses.replace(self, banned=self.banned + self.banned_first, banned_first=())

    def __call__(self, keys: Array, logits: Array) -> Array:
        """Random keys [B], logits [B, V] -> int32 tokens [B]. Each row uses its own key."""
        logits = logits.astype(jnp.float32)
        if self.banned:
            logits = logits.at[:, list(self.banned)].set(-jnp.inf)
        if self.temperature == 0:
            return greedy(logits)
        logits = keep_top_p(keep_top_k(tempered(logits, self.temperature), self.top_k), self.top_p)
        return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def greedy(logits: Array) -> Array:
    """The most probable token of each row, the lowest id on a tie: [B, V] -> int32 [B]."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def tempered(logits: Array, temperature: float) -> Array:
    """Logits over `temperature` > 0, shifted so that the largest is 0 and nothing overflows."""
    return (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature


def keep_top_k(logits: Array, k: int) -> Array:
    """-inf for all but the k largest of each row (ties with the k-th included); unchanged for k = 0
    (Fan et al. 2018, arXiv 1805.04833)."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)


def keep_top_p(logits: Array, p: float) -> Array:
    """-inf for all but the smallest set of most probable tokens whose mass reaches p (ties with the last included);
    unchanged for p = 1 (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751)."""
    if p == 1:
        return logits
    probs = jax.nn.softmax(logits, axis=-1)

    # The set is {probs >= t} for the largest t that leaves a mass of p. Non-negative floats sort like their bits, so 30
    # bisections of [0, 1] find t exactly, in a tenth of the time that sorting 50,000 logits takes on a CPU.
    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        t = jax.lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.sum(probs, axis=-1, keepdims=True, where=probs >= t) >= p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros((*logits.shape[:-1], 1), jnp.int32)
    low, _ = jax.lax.fori_loop(0, ONE.bit_length(), halve, (low, jnp.full_like(low, ONE + 1)))
    return jnp.where(probs >= jax.lax.bitcast_convert_type(low, jnp.float32), logits, -jnp.inf)
