"""Examples of code behind its description, some of whose tokens are corrupted."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.next_token import NextTokens


@dataclasses.dataclass(frozen=True)
class CodeTokens:
    """Next tokens of the targets of pairs: knobs as of `CodeFromText`.

    mask: the id that stands for a hidden token
    vocab: random tokens are drawn from ids below it
    kept: ids that are never corrupted: end-of-text and the like"""

    corrupted: float
    masked: float
    recovered: bool
    prefix: bool
    mask: int
    vocab: int
    kept: tuple[int, ...] = ()

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments, target [S + 1]} -> as `NextTokens`, and with `prefix` that, bool [S]."""
        made = NextTokens(targets_only=True)(row, rng)
        tokens, segments = made["tokens"], made["segments"]
        description = (segments > 0) & (row["target"][:-1] == 0)
        chosen = description & ~np.isin(tokens, self.kept) & (rng.random(len(tokens)) < self.corrupted)
        noise = np.where(rng.random(len(tokens)) < self.masked, self.mask, rng.integers(0, self.vocab, len(tokens)))
        made |= {"tokens": np.where(chosen, noise, tokens).astype(np.int32)}
        if self.recovered:
            # The last token of a description predicts the first of the code, whether it is corrupted or not.
            own = chosen & (made["weights"] == 0)
            made |= {
                "targets": np.where(own, tokens, made["targets"]),
                "weights": np.where(own, np.float32(1), made["weights"]),
            }
            if "bytes" in row:
                made |= {"bytes": np.where(own, row["bytes"][:-1], made["bytes"])}
        return made | ({"prefix": description} if self.prefix else {})
