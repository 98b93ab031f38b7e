"""The protocol of denoisers, which take part of a text out for the model to write: a run of tokens becomes inputs,
which the model reads, and targets, which it writes."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # inputs and targets, int32


class MaxSizes(NamedTuple):
    """The most that rows of some length can take up."""

    inputs: int  # tokens
    targets: int
    sentinels: int  # different ones
    both: int  # inputs and targets of one row


class Original(NamedTuple):
    """A text to take apart. Denoisers move its tokens about without looking at them, so any integers will do: builders
    give their indices, and for the special tokens ~id (which is negative), so that the bytes of each are known still.

    tokens: [n >= 2]
    sentinels: which tell spans apart, in order, at least as many as `sizes(n)` says
    mask: what stands for hidden tokens without telling them apart; None: the vocabulary has nothing for it
    starts: bool [n], where a sentence begins; None: not known
    vocab: how many ids a random token is drawn from"""

    tokens: np.ndarray
    sentinels: np.ndarray
    mask: int | None = None
    starts: np.ndarray | None = None
    vocab: int = 0


@runtime_checkable
class Denoiser(Protocol):
    """A component. It sees one text at a time: the whole of a packed row, whose documents are parted by their
    end-of-text tokens."""

    def sizes(self, length: int) -> MaxSizes:
        """What texts of `length` >= 2 tokens need at most. Of a shorter text none of these is larger."""

    def __call__(self, text: Original, rng: np.random.Generator) -> Pair:
        """The inputs and the targets, without end-of-text; together they hold all that is needed to restore the
        text."""
