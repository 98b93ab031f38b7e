"""Text from tokens that arrive one by one."""

from collections.abc import Collection
from functools import partial

from lm.text.tokenizers import Tokenizer

UNFINISHED = "�"  # what a tokenizer makes of the first bytes of a character


class TextStream:
    """Turns tokens into text as they arrive, holding back a character until all its bytes are there. Special tokens are
    left out, or with `special` spelled, except those in `silent`."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False, silent: Collection[int] = ()) -> None:
        self._decode = partial(tokenizer.decode, special=special)
        self._silent = silent
        self._ids: list[int] = []
        self._given = 0  # characters

    def push(self, *tokens: int) -> str:
        """The text that these tokens complete."""
        # Decode all tokens so far again: how a token is spelled may depend on those before it.
        self._ids.extend(token for token in tokens if token not in self._silent)
        return self._give(self._decode(self._ids).rstrip(UNFINISHED))

    def finish(self) -> str:
        """What is left: bytes that never became a character, as U+FFFD."""
        return self._give(self._decode(self._ids))

    def _give(self, text: str) -> str:
        new, self._given = text[self._given :], max(self._given, len(text))
        return new
