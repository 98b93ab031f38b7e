"""Whether a token could span a position in a text, whatever text comes before and after it (for `lm.data.cuts`)."""

from collections.abc import Callable, Container, Sequence
from functools import cached_property
from typing import Any

WINDOW = 64  # characters on either side that are looked at


def spans(text: str, at: int, pieces: Container[str], longest: int) -> bool:
    """Whether one of these pieces, none longer than `longest`, spans this position of the text."""
    return any(
        text[start:end] in pieces
        for start in range(max(0, at - longest + 1), at)
        for end in range(at + 1, min(len(text), start + longest) + 1)
    )


NEARBY = 8  # characters beside a place that tokens may settle in


def settles(encode: Callable[[str], list[int]], text: str, at: int, longest: int) -> bool:
    """Whether tokens end here, wherever tokens end nearby on either side. Of a tokenizer by which what is between two
    ends of tokens, on its own, is the same tokens (byte pairs, unigrams), that is all that can be: one must end in any
    `longest` characters."""
    befores = range(max(0, at - NEARBY - longest + 1), max(1, at - NEARBY + 1))
    behinds = range(min(len(text), at + NEARBY), min(len(text), at + NEARBY + longest - 1) + 1)
    if len(befores) < longest or len(behinds) < longest:
        return False
    for start in befores:
        head = encode(text[start:at])
        if any(encode(text[start:end])[: len(head)] != head for end in behinds):
            return False
    return True


class PretokenizedJoins:
    """Of a tokenizer of the package `tokenizers`, with its content as JSON."""

    def __init__(self, tokenizer: Any, parsed: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        model = parsed["model"]
        # Where a model's pieces depend on where in a word they are, or on the whole word, only words tell.
        self._by_pieces = model.get("type") == "Unigram" or (
            model.get("type") == "BPE"
            and not (
                model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("ignore_merges")
            )
        )
        # Where it is one token however long it is: what has no piece.
        fuses = model.get("type") == "Unigram" or model.get("fuse_unk")
        unknown = model.get("unk_id") if model.get("type") == "Unigram" else self._id_of(model.get("unk_token"))
        self._endless: int | None = unknown if fuses else None
        self._added: Sequence[dict] = [t for t in parsed.get("added_tokens", []) if len(t["content"]) > 1]

    @cached_property
    def _pieces(self) -> tuple[frozenset[str], int]:
        pieces = frozenset(self._tokenizer.get_vocab(with_added_tokens=False))
        return pieces, max(map(len, pieces))

    def __call__(self, text: str, at: int) -> bool:
        reach = max([WINDOW, *(self._pieces[1:] if self._by_pieces else ())])
        left, right = text[max(0, at - reach) : at], text[at : at + reach]
        whole, head = self._normal(left + right), self._normal(left)
        if not whole.startswith(head) or self._added_over(left, right, whole, len(head)):
            return True
        if self._words_part(left[-WINDOW:], right[:WINDOW]):
            return False
        words = self._words(whole)
        if not self._by_pieces or len(words) > 1 or self._goes_on(left):
            return True
        spelled, before = ("".join(word for word, _ in self._words(t)) for t in (whole, head))
        return not spelled.startswith(before) or spans(spelled, len(before), *self._pieces)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)

    def _goes_on(self, left: str) -> bool:
        """Whether this ends in a token that more of the text could belong to."""
        return self._endless is not None and self._tokenizer.encode(left, add_special_tokens=False).ids[-1:] == [
            self._endless
        ]

    def _normal(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def _words(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """The pre-tokens, and where in the normalised text they are."""
        before = self._tokenizer.pre_tokenizer
        return [(text, (0, len(text)))] if before is None else before.pre_tokenize_str(text)

    def _words_part(self, left: str, right: str) -> bool:
        """Whether no word spans this position, wherever words begin before it."""
        if self._tokenizer.pre_tokenizer is None:
            return False
        for start in range(len(left)):
            at = len(self._normal(left[start:]))
            if any(a < at < b for _, (a, b) in self._words(self._normal(left[start:] + right))):
                return False
        return True

    def _added_over(self, left: str, right: str, normal: str, at: int) -> bool:
        """Whether a token that is found in the text before anything else stands over the place, or asks what does."""
        contents = [t["content"] for t in self._added]
        for around, place in ((left + right, len(left)), (normal, at)):
            if any(c in around[max(0, place - len(c) + 1) : place + len(c) - 1] for c in contents):
                return True
        word = left[-1:].isalnum() and right[:1].isalnum()
        return word and any(t.get("single_word") for t in self._added)
