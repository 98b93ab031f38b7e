"""Absolute positions: rows added to the embedding. Rotations of queries and keys are in `lm.model.rotary`."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.errors import UserError, nearest
from lm.core.leaf import take
from lm.core.param import Initializer, Normal, Param, Tree

Array = jax.Array


def sinusoid(d: int, base: float = 10000.0) -> np.ndarray:
    """Frequencies of the d/2 sines and cosines of a d-wide table, float64."""
    if d % 2:
        raise UserError(f"sines and cosines come in pairs, but the model has width {d}: make it even")
    return base ** (-np.arange(0, d, 2) / d)


@component
class Learned:
    """A trained row per position (GPT-2, BERT). Row `offset` is the first token's (BART and OPT begin at 2, RoBERTa
    behind its padding id). Positions past the table take its last row: callers check lengths."""

    rows: int
    offset: int = 0
    init: Initializer = Normal()

    @property
    def longest(self) -> int:
        return self.rows - self.offset

    def spec(self, d: int) -> Tree:
        # Small, so kept whole on every device: looking up rows that are split over devices is partitioned badly.
        return {"w": Param((self.rows, d), ("position", None), self.init)}

    def __call__(self, p: Tree, positions: Array, d: int, dtype: jax.typing.DTypeLike) -> Array:
        return take(p["w"], jnp.minimum(positions + self.offset, self.rows - 1), dtype)


LAYOUTS = ("pairs", "halves", "fairseq")


@component
class Sinusoidal:
    """Fixed sines and cosines (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).

    layout: "pairs" has sine and cosine of a frequency side by side, "halves" all sines first (Pegasus, Marian); in
    "fairseq" (M2M-100, XGLM) besides, the last frequency is 1 / base. `offset` is the first token's position."""

    base: float = 10000.0
    layout: str = "pairs"
    offset: int = 0

    longest: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"layout={self.layout!r} of sinusoids is unknown{nearest(self.layout, LAYOUTS)}")

    def spec(self, d: int) -> Tree:
        return {}

    def __call__(self, p: Tree, positions: Array, d: int, dtype: jax.typing.DTypeLike) -> Array:
        frequencies = sinusoid(d, self.base)
        if self.layout == "fairseq":
            frequencies = self.base ** (-np.arange(d // 2) / (d // 2 - 1))
        angles = (positions + self.offset)[..., None].astype(jnp.float32) * frequencies  # [B, S, d/2]
        sin, cos = jnp.sin(angles), jnp.cos(angles)
        if self.layout == "pairs":
            return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, d).astype(dtype)
        return jnp.concatenate([sin, cos], axis=-1).astype(dtype)
