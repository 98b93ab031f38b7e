"""Rotary embeddings of queries and keys, and the ways to stretch them over longer contexts.

A scaling is called as `scaling(theta, r, length) -> (frequencies, magnitude)`: theta^(-2i/r) changed for r rotated
elements, and what sines and cosines are multiplied by. `length()` [B, 1, S, 1] is of how many tokens each token's text
is. Frequencies are [r/2], or [B, 1, S, r/2] by the few scalings that look at it: `lengths_of` says what counts as one
text, so that a row never depends on its neighbours, nor a document on others in its row.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.rows import Tokens

Array = jax.Array
Scaled = tuple[Array | np.ndarray, Array | float]
Length = Callable[[], Array]


def plain(theta: float, r: int) -> np.ndarray:
    """theta^(-2i/r) for i < r/2, float64."""
    return theta ** (-np.arange(0, r, 2) / r)


@component
class LinearScaling:
    """Position interpolation: all frequencies divided by `factor` (Chen et al. 2023, arXiv 2306.15595)."""

    factor: float

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        return plain(theta, r) / self.factor, 1.0


@component
class NTKScaling:
    """A larger base, so that the lowest frequency falls by `factor` and the highest stays ("NTK-aware", bloc97 2023;
    YaRN paper, arXiv 2309.00071, definition 1)."""

    factor: float

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        return plain(theta * self.factor ** (r / (r - 2)), r), 1.0


@component
class DynamicScaling:
    """`NTKScaling` that grows with the text: nothing changes up to `original` tokens. What is cached stays rotated for
    the length at its time, so that decoding past `original` differs from reading the whole text, as in transformers."""

    factor: float
    original: int

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        longer = jnp.maximum(length(), self.original).astype(jnp.float32)
        growth = self.factor * longer / self.original - (self.factor - 1)
        i = np.arange(0, r, 2)
        return plain(theta, r) * growth ** (-i / (r - 2)), 1.0


@component
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): frequencies of fewer than `slow` turns within `original` tokens are
    divided by `factor`, those of more than `fast` kept, with a ramp over the dimensions between (whose ends are rounded
    outwards if `rounded`). `magnitude` multiplies sines and cosines; by default 0.1 ln(factor) + 1."""

    factor: float
    original: int
    fast: float = 32.0
    slow: float = 1.0
    magnitude: float | None = None
    rounded: bool = True

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        low, high = (
            r * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))
            for turns in (self.fast, self.slow)
        )
        if self.rounded:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, r - 1)
        stretched = np.clip((np.arange(r // 2) - low) / max(high - low, 1e-3), 0, 1)
        frequencies = plain(theta, r) * (stretched / self.factor + 1 - stretched)
        return frequencies, yarn_magnitude(self.factor) if self.magnitude is None else self.magnitude


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


@component
class LongScaling:
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753): each frequency has a divisor of its own, from `short` up to
    `original` tokens and from `long` beyond; `magnitude` multiplies sines and cosines, beyond `original` that is
    `long_magnitude` where it is given.

    When a text that is generated grows past `original`, it is read anew, and its cache rotated by `long`, if `reread`
    (transformers' Phi-3). Otherwise what was cached stays as it is (its other model types)."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    magnitude: float = 1.0
    reread: bool = True
    long_magnitude: float | None = None

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        for name in ("short", "long"):
            if len(getattr(self, name)) != r // 2:
                raise UserError(
                    f"{name} has {len(getattr(self, name))} divisors for {r // 2} frequencies: give as many"
                )
        longer = length() > self.original
        divisors = jnp.where(longer, np.array(self.long), np.array(self.short))
        beyond = self.magnitude if self.long_magnitude is None else self.long_magnitude
        return plain(theta, r) / divisors, jnp.where(longer, beyond, self.magnitude)


@component
class FrequencyScaling:
    """Llama 3.1's frequency scaling: wavelengths beyond original / low are divided by `factor`, those below
    original / high are kept, and those between are mixed linearly (arXiv 2407.21783 and the published code)."""

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        frequencies = plain(theta, r)
        turns = self.original * frequencies / (2 * math.pi)  # rotations within the original context
        keep = np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
        return keep * frequencies + (1 - keep) * frequencies / self.factor, 1.0


@component
class PowerScaling:
    """Giraffe's power basis (Pal et al. 2023, arXiv 2308.10882): the i-th of r/2 frequencies times
    (1 - 2i/r)^power, so that the lowest, which never saw a full turn, nearly stand still."""

    power: float

    def __call__(self, theta: float, r: int, length: Length) -> Scaled:
        return plain(theta, r) * (1 - np.arange(0, r, 2) / r) ** self.power, 1.0


Scaling = LinearScaling | NTKScaling | DynamicScaling | YarnScaling | LongScaling | FrequencyScaling | PowerScaling


def lengths_of(tokens: Tokens, positions: Array) -> Array:
    """int32 [B, S]: how long the text of each token is: `tokens.length` where that is given, else as far as its
    document (its segment's neighbouring tokens; without segments the row) reaches by `positions` [B, S]."""
    if tokens.length is not None:
        return tokens.length
    if tokens.segments is None:
        return jnp.broadcast_to(positions.max(axis=1, keepdims=True) + 1, positions.shape)
    begins = jnp.pad(tokens.segments[:, 1:] != tokens.segments[:, :-1], ((0, 0), (1, 0)))
    document = begins.cumsum(axis=1)
    last = jax.vmap(lambda p, d: jax.ops.segment_max(p, d, positions.shape[1]))(positions, document)
    return jnp.take_along_axis(last, document, axis=1) + 1


@component
class Rotary:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864): pair i of a head's elements at position n is turned by the
    angle n * theta^(-2i/r), r being the number of rotated elements.

    theta: the base of the angles;
    fraction: of a head's elements, the first r = int(fraction * head_dim) are rotated;
    interleaved: pairs are (2i, 2i + 1), not (i, i + r/2);
    scaling: how angles are changed for longer contexts;
    decay: pair i of queries is also multiplied by z_i^(n / decay), of keys by its inverse, z_i = (2i/r + 0.4) / 1.4:
        xPos (Sun et al. 2022, arXiv 2212.10554);
    values: attention rotates its values too (RoFormer's English models), which makes its outputs depend on where a
        text begins."""

    theta: float = 10000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: Scaling | None = None
    decay: float | None = None
    values: bool = False

    @property
    def any_order(self) -> bool:
        return not isinstance(self.scaling, (DynamicScaling, LongScaling))  # which count the tokens of a text

    def __call__(self, x: Array, tokens: Tokens, key: bool = False) -> Array:
        """x [B, H, S, d] of these tokens -> x rotated, in x's dtype. `key`: x are keys, which matters to xPos."""
        return self.turned(x, tokens.text_positions, tokens, key)

    def turned(self, x: Array, positions: Array, tokens: Tokens, key: bool = False) -> Array:
        """The same by positions [B, S] of these tokens."""
        r = int(x.shape[-1] * self.fraction)
        pairs = -(-r // 2)  # of an odd number the last is paired too, at its own frequency, as elsewhere
        if not 0 < 2 * pairs <= x.shape[-1]:
            raise UserError(f"cannot rotate {r} of {x.shape[-1]} elements in pairs: change head_dim or fraction")

        def length() -> Array:
            return lengths_of(tokens, positions)[:, None, :, None]

        scaled: Scaled = self.scaling(self.theta, r, length) if self.scaling else (plain(self.theta, r), 1.0)
        frequencies, magnitude = scaled
        at = positions[:, None, :, None].astype(jnp.float32)
        cos, sin = (magnitude * f(at * frequencies) for f in (jnp.cos, jnp.sin))  # [B, 1, S, r/2]
        if self.decay:
            base = (np.arange(0, r, 2) / r + 0.4) / 1.4
            power = base ** ((-at if key else at) / self.decay)
            cos, sin = cos * power, sin * power
        turned, rest = x[..., : 2 * pairs].astype(jnp.float32), x[..., 2 * pairs :]
        if self.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            y = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
        else:
            a, b = jnp.split(turned, 2, axis=-1)
            y = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return jnp.concatenate([y.astype(x.dtype), rest], axis=-1)


@component
class Rotary2D:
    """Rotary positions of two kinds (ChatGLM-6B, Zeng et al. 2022, arXiv 2210.02414): one half of each head turns by
    the token's position in the text, the other by its position within a span that is filled in."""

    values: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("span",)

    rotary: Rotary = Rotary()

    @property
    def any_order(self) -> bool:
        return self.rotary.any_order

    def __call__(self, x: Array, tokens: Tokens, key: bool = False) -> Array:
        if x.shape[-1] % 4:
            raise UserError(
                f"cannot rotate two halves of {x.shape[-1]} elements in pairs: make head_dim a multiple of 4"
            )
        span = jnp.zeros_like(tokens.positions) if tokens.span is None else tokens.span
        halves = jnp.split(x, 2, axis=-1)
        turned = [
            self.rotary.turned(h, at, tokens, key) for h, at in zip(halves, (tokens.text_positions, span), strict=True)
        ]
        return jnp.concatenate(turned, axis=-1)
