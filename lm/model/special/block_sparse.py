"""Attention that is sparse by blocks of positions, as biases that hide.

Shapes: B batch, S queries, T keys, H heads, d width of a head."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.rows import HIDDEN, Tokens, visible
from lm.model.masks import Bidirectional

Array = jax.Array


@component
class BlockSparse:
    """Hides keys by blocks of `size` positions (Phi-3-small, Abdin et al. 2024, arXiv 2404.14219): a query sees the
    last `local` blocks, its own among them, and of those before every `stride`-th; each head begins to count elsewhere.
    What is ahead is up to the mask."""

    pairwise: ClassVar[bool] = True

    size: int
    local: int
    stride: int

    def __post_init__(self) -> None:
        if min(self.size, self.local, self.stride) < 1:
            raise UserError(f"BlockSparse({self.size}, {self.local}, {self.stride}): all numbers must be at least 1")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        heads = q.shape[1]
        first = 1 + np.arange(heads)[:, None, None] * max(1, self.stride // heads)  # [H, 1, 1]
        own, other = (t.positions // self.size for t in (q_tokens, k_tokens))
        near = (own[:, :, None] - other[:, None, :] < self.local)[:, None]
        chosen = ((other[:, None, None, :] + first) % self.stride) == 0
        return jnp.where(near | chosen, 0.0, HIDDEN)


@component
class EdgeBlocks:
    """Hides keys by blocks of `size` positions (BigBird, Zaheer et al. 2020, arXiv 2007.14062): a query sees its own
    block, those beside it, and the first and the last of its text, whose queries see all of it. `random` blocks more,
    which the paper draws, are all the first, which counts so many times more: so does the published code's evaluation.
    In rows of up to `whole` tokens nothing is hidden."""

    pairwise: ClassVar[bool] = False

    size: int
    random: int
    whole: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.random < 0:
            raise UserError(f"EdgeBlocks({self.size}, {self.random}): size must be at least 1, random at least 0")

    def spec(self, d: int, heads: int, head_dim: int) -> Tree:
        return {}

    def __call__(
        self, p: Tree, q: Array, k: Array, q_tokens: Tokens, k_tokens: Tokens, ctx: Ctx, scale: float
    ) -> Array:
        if k.shape[2] <= self.whole:
            return jnp.zeros((1, 1, 1, 1))
        own, other = (q_tokens.positions[:, :, None] // self.size, k_tokens.positions[:, None, :] // self.size)
        last = jnp.max(jnp.where(visible(Bidirectional(), q_tokens, k_tokens), other, 0), axis=2, keepdims=True)
        edge = (own == 0) | (own == last)
        seen = edge | (jnp.abs(own - other) <= 1) | (other == 0) | (other == last)
        again = jnp.where((other == 0) & ~edge, math.log(1 + self.random), 0.0)
        return jnp.where(seen, again, HIDDEN)[:, None]
