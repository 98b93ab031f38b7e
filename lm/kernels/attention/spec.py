"""What a caller asks of attention, and what a kernel is. `docs/howto/add-a-kernel.md` adds one.

Shapes: B batch, S queries, T keys, H heads, K key/value heads (H a multiple of K), d width of a key."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax

from lm.core.rows import Mask, Tokens

Array = jax.Array

# A bias as kernels read it: of some queries and some keys, [B or 1, H, s, t] float32, added to scaled scores. The
# slices are of queries and of the keys before the extra ones; all extra keys always stand behind those asked for.
Bias = Callable[[slice, slice], Array]


class Own(NamedTuple):
    """A further key of each query's own: its score, scaled and biased, and its value."""

    scores: Array  # float32 [B, H, S]
    values: Array  # [B, H, S, w]


# Probabilities [B, H, S, T], or T + 1 with a key of each query's own -> those to use: dropout, records.
OnProbs = Callable[[Array], Array]
EVERYTHING = slice(None)


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """One attention without its arrays. Nothing in it is traced and it can be hashed, so `supports` decides while a
    program is traced, and a kernel may take it as a static argument.

    mask: which keys a query sees within its segment; packed segments are always kept apart.
    scale: multiplies q k^T.
    cap: scores s become cap * tanh(s / cap).
    bias: whether something is added to scores: "pairwise", which can be computed for some queries and keys alone, or
        "whole", which needs all of them at once.
    sinks: each head has the score of one further key, whose value is zero.
    own: each query has one further key that it alone sees.
    probs: the caller reads or changes the probabilities, so they must exist as one array.
    aligned: key i is the token of query i, for the first T - extra keys: self-attention without a cache. Only then does
        the mask's band hold for indices.
    extra: the last so many keys are seen by all queries of their segment, whatever the mask."""

    mask: Mask
    scale: float
    cap: float | None = None
    bias: Literal["pairwise", "whole"] | None = None
    sinks: bool = False
    own: bool = False
    probs: bool = False
    aligned: bool = False
    extra: int = 0


class Attend(Protocol):
    """A kernel's function: softmax(scale * q k^T + bias) v over the visible keys, softmax in float32."""

    def __call__(
        self,
        q: Array,
        k: Array,
        v: Array,
        spec: AttentionSpec,
        q_tokens: Tokens,
        k_tokens: Tokens,
        *,
        bias: Bias | None = None,
        sinks: Array | None = None,
        own: Own | None = None,
        on_probs: OnProbs | None = None,
    ) -> Array:
        """q [B, H, S, d], k [B, K, T, d], v [B, K, T, w], of these tokens [B, S] and [B, T] -> [B, H, S, w].

        `bias`, `sinks` [H], `own` and `on_probs` are given exactly where `spec` says so. A query that sees nothing gets
        some finite value."""


class Supports(Protocol):
    """A kernel's statement of what it can do."""

    def __call__(self, spec: AttentionSpec, q: Array, k: Array, v: Array) -> str | None:
        """None if the kernel computes this attention, else what stands against it, in a few words. Of the arrays only
        shapes and dtypes are read."""
