"""Which keys a query may see, as descriptions that the attention kernel reads. Packed segments are always kept apart
by the kernel; these say what holds within one.

`causal`: whether no query sees a key behind it in the text, so that a model may write token by token."""

import functools
import operator
from abc import ABC, abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.rows import Mask, Separated, Tokens

Array = jax.Array
Bounds = tuple[int | None, int | None]


class _InParts(ABC):
    """A mask that is told in parts, and allowed by them."""

    @abstractmethod
    def separated(self) -> Separated: ...

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return self.separated().allowed(q, k)


@component
class Bidirectional(_InParts):
    """Every key."""

    causal: ClassVar[bool] = False

    def separated(self) -> Separated:
        return Separated(None)

    def band(self) -> Bounds:
        return None, None


@component
class Causal(_InParts):
    """Keys at or before the query."""

    causal: ClassVar[bool] = True

    def separated(self) -> Separated:
        return Separated(lambda ahead: ahead <= 0)

    def band(self) -> Bounds:
        return None, 0


@component
class Window(_InParts):
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

    def separated(self) -> Separated:
        return Separated(lambda ahead: (ahead > -self.left) & (ahead < self.right))

    def band(self) -> Bounds:
        return 1 - self.left, self.right - 1


@component
class Prefix(_InParts):
    """Causal, but tokens marked in `ctx.rows["prefix"]` are seen by all (Raffel et al. 2020, arXiv 1910.10683). They
    are read at once, before anything is written."""

    causal: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("prefix",)

    def separated(self) -> Separated:
        return Separated(lambda ahead: ahead <= 0, shown=lambda k: k.prefix)

    def band(self) -> Bounds:
        return None, None


@component
class Strided(_InParts):
    """Causal: the last `stride` tokens and, before them, every `stride`-th (Sparse Transformer, Child et al. 2019,
    arXiv 1904.10509; GPT-3 alternates such layers with dense ones)."""

    stride: int
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"Strided({self.stride}) sees nothing: stride must be at least 1")

    def separated(self) -> Separated:
        return Separated(lambda ahead: (ahead <= 0) & ((ahead > -self.stride) | (ahead % self.stride == 0)))

    def band(self) -> Bounds:
        return None, 0


@component
class Dilated(_InParts):
    """Every `dilation`-th key, `width` of them on either side or, if `causal`, behind (Longformer, 2004.05150)."""

    width: int
    dilation: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.dilation < 1:
            raise UserError(f"Dilated({self.width}, {self.dilation}): both numbers must be at least 1")

    def separated(self) -> Separated:
        low, high = -self.width * self.dilation, 0 if self.causal else self.width * self.dilation
        return Separated(lambda ahead: (ahead >= low) & (ahead <= high) & (ahead % self.dilation == 0))

    def band(self) -> Bounds:
        reach = self.width * self.dilation
        return -reach, 0 if self.causal else reach


@component
class Chunked(_InParts):
    """Causal within chunks of `size` positions (Llama 4); bidirectional with `causal` off."""

    size: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"Chunked({self.size}) holds nothing: size must be at least 1")

    def separated(self) -> Separated:
        behind = (lambda ahead: ahead <= 0) if self.causal else None
        return Separated(behind, pieces=lambda tokens: tokens.positions // self.size)

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

    def separated(self) -> None:
        return None

    def band(self) -> Bounds:
        return None, 0 if self.causal else None


@component(was=("Anchors",))
class GlobalMask(_InParts):
    """Keys marked in `ctx.rows["global"]`: none without such rows (Longformer, Beltagy et al. 2020, 2004.05150)."""

    causal: ClassVar[bool] = False

    def separated(self) -> Separated:
        return Separated(lambda ahead: ahead != ahead, shown=lambda k: None if k.globals is None else k.globals > 0)

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

    def separated(self) -> Separated | None:
        """Of parts that have parts, but cut texts into no pieces."""
        told = [part.separated() for part in self.parts]
        parts = [part for part in told if part is not None and part.pieces is None]
        if len(parts) < len(self.parts):
            return None
        nears = [part.near for part in parts if part.near is not None]

        def near(ahead: Array) -> Array:
            return functools.reduce(operator.or_, (near(ahead) for near in nears))

        def shown(k: Tokens) -> Array | None:
            seen = [keys for part in parts if part.shown is not None and (keys := part.shown(k)) is not None]
            return functools.reduce(operator.or_, seen) if seen else None

        return Separated(near if len(nears) == len(parts) else None, shown=shown)

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

    def separated(self) -> None:
        return None

    def band(self) -> Bounds:
        return self.mask.band()


MaskKind = (
    Bidirectional | Causal | Window | Prefix | Strided | Dilated | Chunked | Permuted | GlobalMask | Either | Except
)
