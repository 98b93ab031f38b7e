"""Absolute positions: rows added to the embedding. Rotations of queries and keys are in `lm.model.rotary`."""

import dataclasses
from typing import Any

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
    def max_length(self) -> int:
        return self.rows - self.offset

    def spec(self, d: int) -> Tree:
        # Rows stay together, however many devices: looking up rows that are split is partitioned badly.
        return {"w": Param((self.rows, d), ("position", "embed"), self.init)}

    def __call__(self, p: Tree, positions: Array, d: int, dtype: jax.typing.DTypeLike) -> Array:
        return take(p["w"], jnp.minimum(positions + self.offset, self.rows - 1), dtype)


LAYOUTS = ("pairs", "halves", "fairseq")


@dataclasses.dataclass(frozen=True)
class Waves:
    """The values of `Sinusoidal` at positions from `first` on, as initial values of a table [rows, D]."""

    base: float = 10000.0
    layout: str = "pairs"
    first: int = 0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
        *_, rows, d = shape
        angles = (np.arange(rows) + self.first)[:, None] * _frequencies(self.layout, d, self.base)
        table = _joined(np, np.sin(angles), np.cos(angles), self.layout)
        return jnp.broadcast_to(jnp.asarray(table, dtype), shape)


@component
class Sinusoidal:
    """Fixed sines and cosines (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).

    layout: "pairs" has sine and cosine of a frequency side by side, "halves" all sines first (Pegasus, Marian); in
    "fairseq" (M2M-100, XGLM) besides, the last frequency is 1 / base. `offset` is the first token's position.
    rows: that many are kept as a table, a buffer, which files hold and may fill otherwise; without they are computed
    anew for any position. Positions past the table take its last row: callers check lengths."""

    base: float = 10000.0
    layout: str = "pairs"
    offset: int = 0
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"layout={self.layout!r} of sinusoids is unknown{nearest(self.layout, LAYOUTS)}")

    @property
    def max_length(self) -> int | None:
        return self.rows

    def spec(self, d: int) -> Tree:
        if self.rows is None:
            return {}
        return {"w": Param((self.rows, d), ("position", None), Waves(self.base, self.layout, self.offset), "buffer")}

    def __call__(self, p: Tree, positions: Array, d: int, dtype: jax.typing.DTypeLike) -> Array:
        if self.rows is not None:
            return take(p["w"], jnp.minimum(positions, self.rows - 1), dtype)
        frequencies = _frequencies(self.layout, d, self.base)
        angles = (positions + self.offset)[..., None].astype(jnp.float32) * frequencies  # [B, S, D/2]
        return _joined(jnp, jnp.sin(angles), jnp.cos(angles), self.layout).astype(dtype)


def _frequencies(layout: str, d: int, base: float) -> np.ndarray:
    if layout == "fairseq":
        return base ** (-np.arange(d // 2) / (d // 2 - 1))
    return sinusoid(d, base)


def _joined(xp: Any, sin: Any, cos: Any, layout: str) -> Any:
    """Sines and cosines [..., D/2] as rows [..., D], by numpy or jax.numpy."""
    if layout == "pairs":
        return xp.stack([sin, cos], axis=-1).reshape(*sin.shape[:-1], -1)
    return xp.concatenate([sin, cos], axis=-1)
