"""Turns of dialogues, of which one may be of another dialogue, with hidden tokens (ERNIE)."""

import dataclasses

import numpy as np

from lm.objectives.examples.builder import Example, Row
from lm.objectives.examples.texts import JoinedTexts, cut, document_in, fitted, partner_in


@dataclasses.dataclass(frozen=True)
class DialogueTurns:
    """Rows of turns of one dialogue, half of them with one of another in their place: see `MaskedDialogues`.

    joined: how a row is made of them
    turns: how many a row has at most"""

    joined: JoinedTexts
    turns: int

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens with turns and who speaks, and a partner -> as `JoinedTexts`. The target is 1
        for a false dialogue; nothing is told of one with a single turn."""
        room, kept = self.joined.room(row, self.turns), self.joined.hidden.kept
        text = document_in(row, kept, rng, self.turns)
        bounds = np.append(np.flatnonzero(text["starts"]), len(text["tokens"]))
        count = min(self.turns, len(bounds) - 1)
        begin = int(rng.integers(len(bounds) - count))
        turns = [cut(text, bounds[i], bounds[i + 1]) for i in range(begin, begin + count)]
        roles = [int(turn["part"][0]) for turn in turns]
        wrong, at = bool(rng.random() < 0.5), int(rng.integers(max(count, 1)))
        other = document_in(partner_in(row), kept, rng, 1)
        starts = np.flatnonzero(other["starts"])
        told = count > 1
        wrong &= told and len(starts) > 0
        if wrong:
            which = int(rng.integers(len(starts)))
            turns[at] = cut(other, starts[which], np.append(starts, len(other["tokens"]))[which + 1])
        turns = fitted(turns or [cut(text, 0, 0)], room, rng)
        return self.joined(turns, roles or [0], int(wrong), told, len(row["tokens"]) - 1, rng)
