"""Pairs of texts as an encoder-decoder reads them: the encoder one, the decoder the other, which is scored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lm.core.errors import UserError
from lm.evaluate.documents import Row, padded
from lm.text.tokenizers import Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True)
class ScoredPairs:
    """The encoder reads before + source + after, the decoder lead + target. Each token of the target is scored, and so
    is the end-of-text after it. `bytes`: size of each target's text."""

    sources: Sequence[np.ndarray]
    targets: Sequence[np.ndarray]
    bytes: Sequence[int]
    end: int
    lead: Ids
    before: Ids = ()
    after: Ids = ()

    @classmethod
    def of(
        cls, texts: Iterable[tuple[str, str]], tokenizer: Tokenizer, lead: Ids, before: Ids, after: Ids
    ) -> "ScoredPairs":
        sources, targets, sizes = [], [], []
        for source, target in texts:
            sources.append(tokenizer.encode(source))
            targets.append(tokenizer.encode(target))
            sizes.append(len(target.encode()))
        return cls(sources, targets, sizes, tokenizer.eos_id, lead, before, after)

    def check(self, length: int) -> None:
        """Raise `UserError` for the first pair with a text longer than `length`."""
        for i, size in enumerate(self.sizes.tolist()):
            if max(size) > length:
                raise UserError(
                    f"pair {i + 1} is of {size[0]:,} and {size[1]:,} tokens, more than --length={length}: give a "
                    "larger one, as far as the model has positions, or leave out the pair"
                )

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def sizes(self) -> np.ndarray:
        """int64[rows, 2]: tokens that encoder and decoder read."""
        around = len(self.before) + len(self.after), len(self.lead)
        pairs = zip(self.sources, self.targets, strict=True)
        return np.array([[len(s) + around[0], len(t) + around[1]] for s, t in pairs], np.int64).reshape(-1, 2)

    @property
    def scored(self) -> np.ndarray:
        return np.array([len(target) + 1 for target in self.targets], np.int64)

    def row(self, i: int, shape: tuple[int, ...]) -> Row:
        source = np.concatenate([self.before, self.sources[i], self.after]).astype(np.int32)
        target = np.concatenate([self.lead, self.targets[i], [self.end]]).astype(np.int32)
        scored = np.arange(1, len(target)) >= len(self.lead)
        encoder = padded(source, source, np.zeros(len(source), bool), shape[0])
        read = {f"encoder/{name}": encoder[name] for name in ("tokens", "segments", "positions")}
        return read | padded(target[:-1], target[1:], scored, shape[1]) | {"bytes": np.array(self.bytes[i], np.int32)}
