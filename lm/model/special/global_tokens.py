"""Rows that a model works out where a batch lacks them. A mark is called as `mark(tokens, rows) -> int32 [B, S]`."""

import jax
import jax.numpy as jnp

from lm.core.component import component

Array = jax.Array


@component(was=("FirstToken",))
class GlobalFirst:
    """The first token of each text: it stands for all of it."""

    def __call__(self, tokens: Array, rows: dict[str, Array]) -> Array:
        return (rows["positions"] == 0).astype(jnp.int32)


@component(was=("BeforeToken",))
class GlobalBefore:
    """What stands before the first token `id` of each text: its question, where a separator follows that. All of a text
    without one."""

    id: int

    def __call__(self, tokens: Array, rows: dict[str, Array]) -> Array:
        positions = rows["positions"]
        found = jnp.cumsum(tokens == self.id, axis=1)
        start = jnp.maximum(jnp.arange(tokens.shape[1]) - positions, 0)  # of each token's text
        earlier = jnp.take_along_axis(jnp.pad(found, ((0, 0), (1, 0))), start, axis=1)  # found in texts before
        return (found == earlier).astype(jnp.int32)


GlobalTokens = GlobalFirst | GlobalBefore
