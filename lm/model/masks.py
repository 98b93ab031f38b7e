"""Which keys a query may see, as descriptions that the attention kernel reads. Packed segments are always kept apart
by the kernel; these say what holds within one."""

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError
from lm.kernels.attention import Tokens

Array = jax.Array
Band = tuple[int | None, int | None]


@component
class Bidirectional:
    """Every key."""

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return jnp.ones((1, 1, 1), bool)

    def band(self) -> Band:
        return None, None


@component
class Causal:
    """Keys at or before the query."""

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        return k.positions[:, None, :] <= q.positions[:, :, None]

    def band(self) -> Band:
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

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        ahead = k.positions[:, None, :] - q.positions[:, :, None]
        return (ahead > -self.left) & (ahead < self.right)

    def band(self) -> Band:
        return 1 - self.left, self.right - 1


@component
class Prefix:
    """Causal, but tokens marked in `ctx.rows["prefix"]` are seen by all (Raffel et al. 2020, arXiv 1910.10683)."""

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        causal = k.positions[:, None, :] <= q.positions[:, :, None]
        return causal if k.prefix is None else causal | k.prefix[:, None, :]

    def band(self) -> Band:
        return None, None


@component
class Strided:
    """Causal: the last `stride` tokens and, before them, every `stride`-th (Sparse Transformer, Child et al. 2019,
    arXiv 1904.10509; GPT-3 alternates such layers with dense ones)."""

    stride: int

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"Strided({self.stride}) sees nothing: stride must be at least 1")

    def allowed(self, q: Tokens, k: Tokens) -> Array:
        behind = q.positions[:, :, None] - k.positions[:, None, :]
        return (behind >= 0) & ((behind < self.stride) | (behind % self.stride == 0))

    def band(self) -> Band:
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

    def band(self) -> Band:
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

    def band(self) -> Band:
        return 1 - self.size, 0 if self.causal else self.size - 1


MaskKind = Bidirectional | Causal | Window | Prefix | Strided | Dilated | Chunked
