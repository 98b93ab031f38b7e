"""What a caller asks of attention, and what a kernel is. `docs/howto/add-a-kernel.md` adds one.

Shapes: B batch, S queries, T keys, H heads, K key/value heads (H a multiple of K), d width of a key."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax

from lm.core.rows import Mask, Tokens
from lm.kernels.place import Place

Array = jax.Array

# A bias as kernels read it: of some queries and some keys, given their tokens [B, s] and [B, t], what is added to their
# scaled scores, [B or 1, H or 1, s, t]. All extra keys must stand behind the others. A "whole" one is asked of all at
# once; a "pairwise" one is a `jax.tree_util.Partial`, if its arrays shall go to other devices with it.
Bias = Callable[[Tokens, Tokens], Array]


class Own(NamedTuple):
    """A further key of each query's own: its score, scaled and biased, and its value."""

    scores: Array  # float32 [B, H, S]
    values: Array  # [B, H, S, w]


# Probabilities [B, H, S, T], or T + 1 with a key of each query's own -> those to use: dropout, records.
OnProbs = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """One attention without its arrays. Nothing in it is traced and it can be hashed, so `supports` decides while a
    program is traced, and a kernel may take it as a static argument.

    mask: which keys a query sees within its segment; packed segments are always kept apart.
    scale: multiplies q k^T.
    cap: scores s become cap * tanh(s / cap).
    bias: whether something is added to scores: "pairwise", which is known of any query and key by their tokens, or
        "whole", which needs all of them at once.
    sinks: each head has the score of one further key, whose value is zero.
    own: each query has one further key that it alone sees.
    probs: the caller reads or changes the probabilities, so they must exist as one array.
    aligned: key i is the token of query i, for the first T - extra keys: self-attention without a cache. Only then does
        the mask's band hold for indices.
    extra: the last so many keys are seen by all queries of their segment, whatever the mask.
    packed: tokens have segments, of queries or of keys."""

    mask: Mask
    scale: float
    cap: float | None = None
    bias: Literal["pairwise", "whole"] | None = None
    sinks: bool = False
    own: bool = False
    probs: bool = False
    aligned: bool = False
    extra: int = 0
    packed: bool = False


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
        place: Place,
        bias: Bias | None = None,
        sinks: Array | None = None,
        own: Own | None = None,
        on_probs: OnProbs | None = None,
    ) -> Array:
        """q [B, H, S, d], k [B, K, T, d], v [B, K, T, w], of these tokens [B, S] and [B, T] -> [B, H, S, w].

        `bias`, `sinks` [H], `own` and `on_probs` are given exactly where `spec` says so. A query that sees nothing gets
        some finite value. `place`: where this runs; its mesh is for kernels that XLA does not cut over devices."""


class Supports(Protocol):
    """A kernel's statement of what it can do."""

    def __call__(self, spec: AttentionSpec, q: Array, k: Array, v: Array, place: Place) -> str | None:
        """None if the kernel computes this attention, else what stands against it, in a few words. Of the arrays only
        shapes and dtypes are read."""
