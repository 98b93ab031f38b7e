"""Which keys a query may see, as descriptions that the attention kernel reads. Packed segments are always kept apart
by the kernel; these say what holds within one.

`causal`: whether no query sees a key behind it in the text, so that a model may write token by token."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.rows import Mask, Tokens

Array = jax.Array
Bounds = tuple[int | None, int | None]


@component
class Bidirectional:
    """Every key."""

    causal: ClassVar[bool] = False

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return jnp.ones((1, 1, 1), bool)

    def band(self) -> Bounds:
        return None, None


@component
class Causal:
    """Keys at or before the query."""

    causal: ClassVar[bool] = True

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return k.positions[:, None, :] <= q.positions[:, :, None]

    def band(self) -> Bounds:
        return None, 0


@component
class Window:
    """Keys in query - left < key < query + right, the query itself included (Beltagy et al. 2020, arXiv 2004.05150).

    `Window(w, 1)` is the causal sliding window of width w."""

    left: int
    right: int = 1

    def __post_init__(self) -> None:
        if self.left < 1 or self.right < 1:
            raise UserError(f"Window({self.left}, {self.right}) hides the query itself: both sides must be at least 1")

    @property
    def causal(self) -> bool:
        return self.right == 1

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        ahead = k.positions[:, None, :] - q.positions[:, :, None]
        return (ahead > -self.left) & (ahead < self.right)

    def band(self) -> Bounds:
        return 1 - self.left, self.right - 1


@component
class Prefix:
    """Causal, but tokens marked in `ctx.rows["prefix"]` are seen by all (Raffel et al. 2020, arXiv 1910.10683). They
    are read at once, before anything is written."""

    causal: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("prefix",)

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        causal = k.positions[:, None, :] <= q.positions[:, :, None]
        return causal if k.prefix is None else causal | k.prefix[:, None, :]

    def band(self) -> Bounds:
        return None, None


@component
class Strided:
    """Causal: the last `stride` tokens and, before them, every `stride`-th (Sparse Transformer, Child et al. 2019,
    arXiv 1904.10509; GPT-3 alternates such layers with dense ones)."""

    stride: int
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"Strided({self.stride}) sees nothing: stride must be at least 1")

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        behind = q.positions[:, :, None] - k.positions[:, None, :]
        return (behind >= 0) & ((behind < self.stride) | (behind % self.stride == 0))

    def band(self) -> Bounds:
        return None, 0


@component
class Dilated:
    """Every `dilation`-th key, `width` of them on either side or, if `causal`, behind (Longformer, 2004.05150)."""

    width: int
    dilation: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.dilation < 1:
            raise UserError(f"Dilated({self.width}, {self.dilation}): both numbers must be at least 1")

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        behind = q.positions[:, :, None] - k.positions[:, None, :]
        distance = behind if self.causal else jnp.abs(behind)
        return (distance >= 0) & (distance <= self.width * self.dilation) & (behind % self.dilation == 0)

    def band(self) -> Bounds:
        reach = self.width * self.dilation
        return -reach, 0 if self.causal else reach


@component
class Chunked:
    """Causal within chunks of `size` positions (Llama 4); bidirectional with `causal` off."""

    size: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"Chunked({self.size}) holds nothing: size must be at least 1")

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        same = q.positions[:, :, None] // self.size == k.positions[:, None, :] // self.size
        return same & (k.positions[:, None, :] <= q.positions[:, :, None]) if self.causal else same

    def band(self) -> Bounds:
        return 1 - self.size, 0 if self.causal else self.size - 1


@component
class Permuted:
    """A factorisation order (XLNet, Yang et al. 2019, arXiv 1906.08237), given by the row `order`: a token of rank r
    sees those up to its own rank. A token of order ~r, which is negative, only asks for the token of rank r, sees those
    before it, and is seen by none (the paper's query stream; the others are its content stream). Ranks count from 1;
    those of rank 0 are given and seen by all. Queries follow the content. Without such a row every key is seen.
    With `causal` what is ahead is hidden besides."""

    reads: ClassVar[tuple[str, ...]] = ("order",)

    causal: bool = False

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        ahead = k.positions[:, None, :] > q.positions[:, :, None]
        seen = ~ahead if self.causal else jnp.ones_like(ahead)
        if q.order is None or k.order is None:
            return seen
        last = jnp.where(q.order < 0, ~q.order - 1, q.order)  # the highest rank that a query sees
        return seen & (k.order >= 0)[:, None, :] & (k.order[:, None, :] <= last[:, :, None])

    def band(self) -> Bounds:
        return None, 0 if self.causal else None


@component(was=("Anchors",))
class GlobalMask:
    """Keys marked in `ctx.rows["global"]`: none without such rows (Longformer, Beltagy et al. 2020, 2004.05150)."""

    causal: ClassVar[bool] = False

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return jnp.zeros((1, 1, 1), bool) if k.globals is None else (k.globals > 0)[:, None, :]

    def band(self) -> Bounds:
        return None, None


@component
class Either:
    """What at least one of several masks shows."""

    parts: tuple[Mask, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("a mask of no parts hides everything: give at least one")

    @property
    def causal(self) -> bool:
        return all(part.causal for part in self.parts)

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return functools.reduce(jnp.logical_or, (part.allowed(q, k) for part in self.parts))

    def band(self) -> Bounds:
        lows, highs = zip(*(part.band() for part in self.parts), strict=True)
        return None if None in lows else min(lows), None if None in highs else max(highs)


@component
class Except:
    """What a mask shows, but for what `hidden` shows."""

    mask: Mask
    hidden: Mask

    @property
    def causal(self) -> bool:
        return self.mask.causal

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return self.mask.allowed(q, k) & ~self.hidden.allowed(q, k)

    def band(self) -> Bounds:
        return self.mask.band()


MaskKind = (
    Bidirectional | Causal | Window | Prefix | Strided | Dilated | Chunked | Permuted | GlobalMask | Either | Except
)
