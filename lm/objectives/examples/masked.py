"""Examples with some tokens hidden, to be predicted from the rest on both sides."""

import dataclasses

import numpy as np

from lm.data.packing import read_of
from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.hiding import Hidden, Hiding, MaskableRow, SingleTokens
from lm.objectives.examples.next_token import positions_in
from lm.objectives.examples.similar import SimilarWords


@dataclasses.dataclass(frozen=True)
class HiddenTokens:
    """Rows of which a `share` of the tokens is hidden: see `MaskedTokens`.

    mask: the id that stands for a hidden token
    vocab: random tokens are drawn from ids below it
    kept: ids that are never hidden: end-of-text and the like
    hiding: which tokens
    starts: bool [V], tokens with which words begin, where `hiding` reads words
    similar: words to stand in the place of masks; None: masks
    predictions: positions that a row's targets are of; 0: all"""

    share: float
    masked: float
    random: float
    mask: int
    vocab: int
    kept: tuple[int, ...] = ()
    hiding: Hiding = SingleTokens()
    starts: np.ndarray | None = dataclasses.field(default=None, compare=False)
    similar: SimilarWords | None = None
    predictions: int = 0

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [S + 1]} -> tokens, targets, weights, segments, positions [S]; of one with
        bytes also those of each target. With `predictions` P targets, weights and bytes are [P], and `predicted` [P]
        says of which positions, in order; those that are left over have weight 0."""
        row = read_of(row, "tokens", "segments", "bytes", *self.hiding.channels)
        tokens, segments = row["tokens"], row["segments"]
        hidden, shown = self.hide(row, rng)
        made = {"tokens": shown, "segments": segments, "positions": positions_in(segments)}
        of_targets = {"targets": tokens, "weights": np.isin(np.arange(len(tokens)), hidden.at).astype(np.float32)}
        of_targets |= {"bytes": row["bytes"]} if "bytes" in row else {}
        if not self.predictions:
            return made | of_targets
        at = np.pad(np.sort(hidden.at), (0, self.predictions - len(hidden.at))).astype(np.int32)
        weights = (np.arange(self.predictions) < len(hidden.at)).astype(np.float32)
        return made | {name: x[at] for name, x in of_targets.items()} | {"predicted": at, "weights": weights}

    def hide(self, row: Row, rng: np.random.Generator) -> tuple[Hidden, np.ndarray]:
        """What is hidden of a row {tokens, segments, channels [S]}, and the tokens that are shown, [S]."""
        tokens, segments = row["tokens"], row["segments"]
        text = (segments > 0) & ~np.isin(tokens, self.kept)
        budget = max(1, round(self.share * np.count_nonzero(text)))
        starts = None if self.starts is None or not self.hiding.words else self.starts[tokens]
        maskable = MaskableRow(text, segments, starts, row.get("span"))
        hidden = self.hiding(maskable, min(budget, self.predictions or budget), rng)
        if self.predictions:  # of a single word that is longer, its first tokens
            hidden = Hidden(*(x[: self.predictions] for x in hidden))
        drawn = rng.random(int(hidden.group.max(initial=-1)) + 1)[hidden.group]
        shown = tokens.copy()
        replaced = hidden.at[drawn < self.masked]
        noisy = hidden.at[(drawn >= self.masked) & (drawn < self.masked + self.random)]
        if self.similar is None:
            shown[replaced] = self.mask
        else:
            noisy = np.append(noisy, self.similar.replace(shown, maskable, replaced, rng))
        shown[noisy] = rng.integers(0, self.vocab, len(noisy))
        return hidden, shown


@dataclasses.dataclass(frozen=True)
class HiddenSpans:
    """Rows of which spans are hidden, and each of their tokens is to be predicted twice: from its own state, and from
    those beside its span. See `MaskedSpans`.

    heads: the names of the heads that do the one and the other"""

    hidden: HiddenTokens
    heads: tuple[str, str]

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """As `HiddenTokens`, but with targets and weights of each head, and span_left, span_right, span_index [S]: of a
        hidden token, those of its span; of any other, as if it were a span of its own."""
        made = self.hidden(row, rng)
        targets, weights = made.pop("targets"), made.pop("weights")
        made.pop("bytes", None)
        index, asked = np.arange(len(weights)), weights > 0
        # The last token before each that is not hidden, and the first behind it: spans do not touch.
        left = np.maximum.accumulate(np.where(asked, 0, index))
        right = np.minimum.accumulate(np.where(asked, len(index), index)[::-1])[::-1]
        spans = {
            "span_left": np.where(asked, left, index - 1),
            "span_right": np.where(asked, right, index + 1),
            "span_index": np.where(asked, index - left - 1, 0),
        }
        of_heads = {
            f"{name}/{key}": x for name in self.heads for key, x in (("targets", targets), ("weights", weights))
        }
        return made | of_heads | {name: x.astype(np.int32) for name, x in spans.items()}
