"""Denoising: part of a text is taken out, and the model writes it (`lm.objectives.examples.denoising`)."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from lm.core.component import component, components
from lm.core.errors import UserError, nearest
from lm.objectives.examples.denoising import (
    MODES,
    PairedDenoising,
    PrefixDenoising,
    SpecialIds,
    filling,
    largest,
)
from lm.objectives.examples.published import SEVEN, SPANS_AS_RUN, Choice
from lm.objectives.examples.spans import SpanCorruption
from lm.objectives.objective import Needs, Objective
from lm.objectives.token_loss import TokenLoss, TokenObjective

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer


@component
class MixtureOfDenoisers(TokenObjective):
    """Each row under a denoiser of its own, for an encoder-decoder.

    denoisers: (rate, mode, denoiser); rates are relative; inputs begin with a token for their mode ("R", "S", "X",
        "CLM" or "CDec"), or without one for "". Published mixtures: `lm.objectives.examples.published`
    inputs, targets: lengths of the arrays, enough for whatever is drawn: `of` and `filling` compute them
    ids: special tokens; None: the tokenizer's
    exact: whether the rows of a source take turns, so that each denoiser has its share of them at any time, within a
        row or two; if off, each row draws its own"""

    denoisers: tuple[Choice, ...]
    inputs: int
    targets: int
    ids: SpecialIds | None = None
    loss: TokenLoss = TokenLoss()
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.denoisers or min(rate for rate, _, _ in self.denoisers) <= 0:
            raise UserError("a mixture needs at least one denoiser, each with a rate above 0")
        for _, mode, _ in self.denoisers:
            if mode and mode not in MODES:
                raise UserError(f"denoiser mode {mode!r} is unknown{nearest(mode, MODES)}")

    @classmethod
    def of(cls, length: int, denoisers: tuple[Choice, ...] = SEVEN, **knobs: Any) -> Self:
        """The mixture for rows of `length` tokens, its arrays as long as these can need."""
        most = largest(denoisers, length)
        return cls(denoisers, most.inputs, most.targets, **knobs)

    @classmethod
    def filling(cls, tokens: int, denoisers: tuple[Choice, ...] = SPANS_AS_RUN, **knobs: Any) -> tuple[Self, int]:
        """The mixture whose encoder reads so many tokens, and the length of the rows that fill them:

            objective, config.data.length = MixtureOfDenoisers.filling(512)  # of 568 tokens, with 114 targets

        Rows of span corruption leave no padding on either side; of several denoisers, those of the longest inputs."""
        length = filling(denoisers, tokens)
        return cls.of(length, denoisers, **knobs), length

    def needs(self) -> Needs:
        return Needs(rows=("encoder/tokens",), positions=max(self.inputs, self.targets))

    def examples(self, tokenizer: "Tokenizer | None" = None) -> PairedDenoising:
        return PairedDenoising(self.denoisers, self.inputs, self.targets, self._special(tokenizer), self.exact)

    def _special(self, tokenizer: "Tokenizer | None") -> SpecialIds:
        if self.ids is not None:
            return self.ids
        if tokenizer is None:  # shapes alone are asked for
            return SpecialIds(0, self.inputs, modes=(0,) * len(MODES), stops=(0,), vocab=1)
        modes = {mode for _, mode, _ in self.denoisers if mode}
        return SpecialIds.of(tokenizer, modes)


@component
class PrefixMixtureOfDenoisers(MixtureOfDenoisers):
    """The mixture for a decoder-only model whose attention has the `Prefix` mask: inputs and targets in one
    stream, the inputs seen by all, the loss on the targets alone.

    stream: tokens of the stream; 0: `inputs` and `targets` together, which is more than any row needs. `filling`
        computes the rest for it"""

    stream: int = 0

    @classmethod
    def filling(cls, tokens: int, denoisers: tuple[Choice, ...] = SPANS_AS_RUN, **knobs: Any) -> tuple[Self, int]:
        """The mixture whose model reads so many tokens, its context, and the length of the rows that fill them:

            objective, config.data.length = PrefixMixtureOfDenoisers.filling(512, SEVEN)  # of 381 tokens

        Of several denoisers, those fill it whose inputs and targets are the longest together."""
        length = filling(denoisers, tokens + 1, "both")  # the last token is predicted and not read
        return cls.of(length, denoisers, stream=tokens, **knobs), length

    def needs(self) -> Needs:
        return Needs(rows=("prefix",), positions=self.stream)

    def examples(self, tokenizer: "Tokenizer | None" = None) -> PrefixDenoising:
        ids = self._special(tokenizer)
        return PrefixDenoising(self.denoisers, self.inputs, self.targets, ids, self.exact, self.stream)


def short_spans(objective: Objective, length: int) -> Iterator[str]:
    """Notes on span corruption, anywhere in an objective, that in rows of `length` tokens has shorter spans than its
    mean: there is less noise than one of them would take."""
    for part in components(objective):
        if isinstance(part, SpanCorruption) and (noise := part.counts(length)[0]) < part.mean:
            least = math.ceil((part.mean - 0.5) / part.density)
            yield (
                f"spans of {part.mean:g} tokens on average are too long for rows of {length}, of which "
                f"{part.density:.0%} ({noise}) make one span: rows of config.data.length={least} have room for one"
            )
